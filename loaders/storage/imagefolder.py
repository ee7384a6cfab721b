"""Folders of images, one per class, as torchvision lays them out: PATH/train/CLASS/*.JPEG and PATH/val/..."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import DataError, named
from loaders.dataset import ImageDataset
from loaders.images.decoding import shape_of
from loaders.images.transforms import Pipeline
from loaders.transport.remote import is_remote

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".jfif")

_PROGRAMS = re.compile(r"[.@#$].*|__MACOSX|lost\+found")  # .ipynb_checkpoints, .Trash-1000, @eaDir, $RECYCLE.BIN


class ImageFolderDataset(ImageDataset):
    """One split of an image folder.

    Names are kept in one numpy array: 1.28 million Python strings would be copied into every worker, page by page, as
    their reference counts are touched.

    Args:
        path: the folder that holds train/ and val/.
        split: `train` or `val`.
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed.

    Raises:
        DataError: every fault of the folder's structure that can be seen without opening an image.
    """

    classes: list[str]
    labels_are_free = False

    def __init__(self, path: str | os.PathLike[str], split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        if is_remote(os.fspath(path)):
            raise DataError(f"{path}: is in a store. Set is_streaming=true local=/a/cache/folder, or copy it here.")
        problems = structure_faults(Path(path), needed=(split,))
        if problems:
            raise DataError("\n".join(problems))
        self.folder = Path(path) / split
        self.classes = class_names(self.folder)
        found = [list_class(self.folder / name) for name in self.classes]
        self.remarks = listing_remarks(self.folder, self.classes, found)
        per_class = [listing.images for listing in found]
        empty = [name for name, names in zip(self.classes, per_class, strict=True) if not names]
        if empty:
            raise DataError(empty_classes(self.folder, empty))
        self.names = np.array([os.fsencode(name) for names in per_class for name in names], dtype=np.bytes_)
        self.labels = np.repeat(np.arange(len(self.classes)), [len(names) for names in per_class])

    def __len__(self) -> int:
        return len(self.names)

    def path_of(self, index: int) -> Path:
        """An image's file."""
        return self.folder / self.classes[self.labels[index]] / os.fsdecode(self.names[index])

    def name_of(self, index: int) -> str:
        return str(self.path_of(index))

    def read(self, index: int) -> tuple[bytes, int]:
        path = self.path_of(index)
        try:
            return path.read_bytes(), int(self.labels[index])
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error

    def measure(self, index: int) -> tuple[int, int, int]:
        try:
            return *shape_of(self.path_of(index)), int(self.labels[index])
        except Exception as error:
            raise self.unreadable(index, error) from error


def class_names(folder: Path) -> list[str]:
    """The sorted names of the folders in `folder`.

    Raises:
        DataError: it cannot be looked into.
    """
    with _looking_into(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return name.lower().endswith(EXTENSIONS)


class Listing(NamedTuple):
    """What lies below a class' folder, links followed; paths are relative to it.

    Args:
        images: in torchvision's order.
        others: files that are not read, such as those of other names, and pipes.
        programs: folders that programs make for themselves.
    """

    images: list[str]
    others: list[str]
    programs: list[str]


def list_class(folder: Path) -> Listing:
    """Look through a class' folder and those in it.

    Raises:
        DataError: one cannot be looked into, or is a link to one that it lies in, or to nothing.
    """
    found = Listing([], [], [])
    _list_below(folder, "", tuple(map(str, Path(os.path.realpath(folder)).parents)), found)
    return found


def _list_below(folder: Path, prefix: str, above: tuple[str, ...], found: Listing) -> None:
    """Add what is in one folder of a class and below it; `above` are the real paths of the folders that it lies in."""
    path, below = folder / prefix, []
    real = os.path.realpath(path)
    if real in above:
        remedy = shlex.join(["rm", str(path)])
        raise DataError(f"{path}: is a link to {real}, in which it lies, so that it has no end. Remove it: {remedy}")
    with _looking_into(path):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if entry.is_dir():
                below.append(prefix + entry.name)
            elif _is_dangling(entry) and not is_image(entry.name):  # of an image's, reading it tells
                raise DataError(_unmounted(path, [entry.name]))
            elif is_image(entry.name) and (entry.is_file() or _is_dangling(entry)):
                found.images.append(prefix + entry.name)
            else:
                found.others.append(prefix + entry.name)
    found.programs.extend(name for name in below if _PROGRAMS.fullmatch(os.path.basename(name)))
    for name in below:
        _list_below(folder, name + os.sep, (*above, real), found)


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to what is not there."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def _unmounted(folder: Path, names: list[str]) -> str:
    """The sentence for links in a folder that lead nowhere."""
    return f"{folder}: {named(names)} are links to what is not there. Is a disk not mounted? Else remove them."


@contextlib.contextmanager
def _looking_into(folder: Path) -> Iterator[None]:
    """Turn the system's complaints about a folder into a sentence."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise DataError(
            f"{place}: cannot be looked into ({error.strerror}). Make it readable, or remove it."
        ) from error


def listing_remarks(folder: Path, classes: list[str], found: Sequence[Listing]) -> list[str]:
    """What is worth saying of a split's folder, though it is no fault: a sentence each.

    Args:
        folder: of the split.
        classes: the names of the folders in it.
        found: in each of them.
    """
    with _looking_into(folder):
        beside = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    others = [name for listing in found for name in listing.others]
    programs = [name for name in classes if _PROGRAMS.fullmatch(name)]
    programs += [f"{name}/{below}" for name, listing in zip(classes, found, strict=True) for below in listing.programs]
    remarks = []
    if beside:
        what = f"{len(beside)} files lie beside the classes' folders, and are not read ({named(beside)})."
        remarks.append(f"{folder.name}: {what}")
    if others:
        kinds = named(sorted({os.path.splitext(name)[1] or os.path.basename(name) for name in others}))
        remarks.append(f"{folder.name}: {len(others)} files are no images by their names, and are not read ({kinds}).")
    if programs:
        remarks.append(
            f"{folder.name}: {named(programs)} look like folders that programs make for themselves; images in them "
            "are read like all others. Remove them if that is not meant."
        )
    return remarks


def structure_faults(root: Path, needed: tuple[str, ...] = SPLITS) -> list[str]:
    """What is wrong with the folders, without looking at a single file inside a class.

    Args:
        root: the folder that should hold train/ and val/.
        needed: the splits that must be there; the other one is compared if it happens to be.

    Returns:
        One sentence per fault.
    """
    if not root.exists():
        return [f"{root}: no such folder. It should hold train/ and val/, with one folder per class in each."]
    if not root.is_dir():
        return [f"{root}: is a file. A data set is a folder with train/ and val/ in it; unpack archives first."]
    missing = [split for split in needed if not (root / split).is_dir()]
    problems = [_missing_split(root, split) for split in missing]
    there = [split for split in SPLITS if (root / split).is_dir()]
    for split in there:
        problems += _split_faults(root / split) if split in needed else []
    if not problems and len(there) == len(SPLITS):
        problems += _class_faults(root)
    return problems


def _missing_split(root: Path, split: str) -> str:
    """The sentence for a folder without train/ or val/, with a guess at what it is instead."""
    if (root / split).is_symlink():
        return _unmounted(root, [split])
    if split == "val" and (root / "test").is_dir():
        return f"{root}: has no val/ but has test/. Rename it: mv {shlex.join([f'{root}/test', f'{root}/val'])}"
    if (root / f"{split}.beton").is_file():
        return f"{root}: holds {split}.beton, an FFCV file. Set storage=ffcv to train from it; it is not verified here."
    folders = class_names(root)
    found = f"it holds {named([name + '/' for name in folders])}" if folders else "it holds no folders"
    return f"{root}: has no {split}/ ({found}). Expected {root / split}/CLASS/*.JPEG."


def _split_faults(folder: Path) -> list[str]:
    """A split without class folders: shards, images lying flat, or nothing."""
    with _looking_into(folder):
        dangling = sorted(entry.name for entry in os.scandir(folder) if _is_dangling(entry))
    if dangling:
        return [_unmounted(folder, dangling)]
    if class_names(folder):
        return []
    names = sorted(os.listdir(folder))
    if "index.json" in names:
        return [f"{folder}: holds MDS shards, no images. Set is_streaming=true local=/a/cache/folder."]
    flat = sum(map(is_image, names))
    if flat:
        return [
            f"{folder}: {flat} images lie directly in it, as in ImageNet's archive of validation images. "
            "They must be sorted into one folder per class, with the class names of train/: python -m tools.verify "
            f"{shlex.quote(str(folder.parent))} --fold MAPPING"
        ]
    return [f"{folder}: is empty. Expected one folder per class."]


def _class_faults(root: Path) -> list[str]:
    """Classes that one split has and the other has not: every label after the first would be wrong."""
    train, val = (set(class_names(root / split)) for split in SPLITS)
    problems = []
    for here, there, only in (("train", "val", train - val), ("val", "train", val - train)):
        if only:
            names = named(sorted(only))
            problems.append(
                f"{root}: {len(only)} classes are in {here}/ but not in {there}/ ({names}), so that the labels of the "
                "two would disagree. Add the missing folders or remove the surplus ones."
            )
    return problems


def empty_classes(folder: Path, empty: list[str]) -> str:
    """The sentence for class folders without an image."""
    return (
        f"{folder}: no images in {len(empty)} of its classes ({named(empty)}). "
        f"Add some ({', '.join(EXTENSIONS)}), or remove the folders from train/ and val/ both."
    )
