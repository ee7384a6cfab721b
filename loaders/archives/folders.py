"""Image folders in a store, train/CLASS/*.JPEG and val/CLASS/*.JPEG; those on a disk need no catalog."""

from __future__ import annotations

from loaders.archives.catalog import UNSPLIT, DataCopy
from loaders.archives.forms import ReadOptions
from loaders.archives.holders import class_folders
from loaders.archives.place import Place
from loaders.archives.splits import check_classes
from loaders.storage.imagefolder import SPLITS, is_image
from loaders.transport.remote import is_remote


def is_folder_in_store(place: Place) -> bool:
    """Whether a folder in a store holds class folders, in train/ and val/ or by themselves."""
    if not is_remote(place.root) or place.only:
        return False
    return any(_holds_classes(place, split) for split in (*SPLITS, ""))


def open_folder_in_store(place: Place, _options: ReadOptions) -> DataCopy:
    """Open such a folder; raises a DataError if one split has a class that the other lacks."""
    splits = [split for split in SPLITS if f"{split}/" in place.names()]
    found = {split or UNSPLIT: class_folders(place, split) for split in splits or [""]}
    check_classes(place.given, {split: images.classes or [] for split, images in found.items()})
    classes = next(iter(found.values())).classes or []
    catalogs = {split: images.catalog(classes) for split, images in found.items()}
    return DataCopy("an image folder", catalogs, classes)


def _holds_classes(place: Place, folder: str) -> bool:
    """Whether the first two folders in a folder hold images, or folders: a listing of all takes minutes."""
    classes = [name for name in place.names(folder) if name.endswith("/") and name[:-1] not in SPLITS][:2]
    if len(classes) < 2 and not folder:
        return False
    inside = [place.names(f"{folder}/{name[:-1]}".lstrip("/")) for name in classes]
    return bool(inside) and all(any(map(is_image, names)) for names in inside)
