"""ImageNet as it is given out: the archives of ILSVRC2012, whole or unpacked one level, and Kaggle's tree."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.errors import DataError
from loaders.archives.catalog import Catalog, DataCopy
from loaders.archives.forms import ReadOptions
from loaders.archives.holders import (
    CLASS_TAR,
    Holder,
    Images,
    class_folders,
    class_tars,
    flat_folder,
    flat_tar,
    tar_of_tars,
)
from loaders.archives.place import Place
from loaders.archives.tars import members
from loaders.archives.val_labels import classes_of, find_labels, labels_beside, no_labels
from loaders.class_names import IMAGENET_IMAGES, NOT_ALL, are_imagenet, imagenet
from loaders.storage.imagefolder import is_image
from loaders.transport.remote import is_remote

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train", "ILSVRC2012_img_val"
KAGGLE = "ILSVRC/Data/CLS-LOC"  # holds train/ and val/ in Kaggle's tree
MOST_TARS = 16  # in a folder whose tars are opened to recognize them; hundreds of tars are another form
_VAL_IMAGE = re.compile(r"(?:\./)?(?:(?!n\d{8}/)[^/]+/)?ILSVRC2012_val_\d{8}\.JPEG", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """Where the images of a copy are."""

    place: Place
    base: str  # folder that holds train/ and val/: of Kaggle's tree, or empty
    train: Holder | None
    val: Holder | None

    @property
    def beside(self) -> list[str]:
        """The folders in which the files with the labels of val/ may be."""
        parts = self.base.split("/") if self.base else []
        return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def is_imagenet(place: Place) -> bool:
    """Whether a place holds ImageNet in one of these forms; an image folder with both splits needs no help."""
    return layout_of(place) is not None


def layout_of(place: Place) -> Layout | None:
    """Return where the images are; None for any other data set."""
    whole, base = _whole_tree(place)
    train, val = _holder(whole, base, _TRAIN), _holder(whole, base, _VAL)
    found = Layout(whole, base, train, val)
    of_folders = train is None or train.indexer is class_folders
    if of_folders and (val is None or val.indexer is class_folders):
        # Kaggle's tree, whose val/ somebody has sorted into folders, unless its own train/ and val/ were given.
        return found if (train or val) and not {"train/", "val/"} & set(place.names()) else None
    if of_folders and val and val.indexer is flat_folder and not _is_imagenets(found):
        return None
    return found


def _whole_tree(place: Place) -> tuple[Place, str]:
    """Return the root of Kaggle's tree, even if a folder in it was given, and the folder of train/ and val/ in it."""
    if place.only:
        return place, ""
    parts, names = KAGGLE.split("/"), set(place.names())
    for depth, part in enumerate(parts):
        if f"{part}/" in names and {"train/", "val/"} & set(place.names("/".join(parts[depth:]))):
            root = _without(place, parts[:depth])
            return (root, KAGGLE) if root else (place, "/".join(parts[depth:]))
    if {"train/", "val/"} & names and (root := _without(place, parts)):
        return root, KAGGLE
    return place, ""


def _without(place: Place, parts: list[str]) -> Place | None:
    """Return a place some folders above, if these are its last ones; itself, if they are none."""
    if not parts:
        return place
    root = place.root if is_remote(place.root) else os.path.abspath(place.root)
    end = "/" + "/".join(parts)
    return Place(root.rstrip("/").removesuffix(end) or "/") if root.rstrip("/").endswith(end) else None


class _Side(NamedTuple):
    """What may hold one split, and how it is indexed."""

    folder: str
    archive: str  # the official name of the tar of the whole split, or of the folder that it was unpacked to
    holds: re.Pattern[str]  # names in either
    of_archive: Callable[[Place, str], Images]
    of_folder: Callable[[Place, str], Images]
    may_be_flat: bool = False  # whether `folder` may hold images of any names


_TRAIN = _Side("train/", TRAIN_TAR, CLASS_TAR, tar_of_tars, class_tars)
_VAL = _Side("val/", VAL_TAR, _VAL_IMAGE, flat_tar, flat_folder, may_be_flat=True)


def _holder(place: Place, base: str, side: _Side) -> Holder | None:
    """Find what holds the images of a split."""
    names = place.names(base)
    for name in _tars(names, side.archive):
        if name.startswith(side.archive) or side.holds.fullmatch(_first(place, _in(base, name))):
            return Holder(side.of_archive, _in(base, name))
    for folder in (side.folder, f"{side.archive}/", ""):
        if folder and folder not in names:
            continue
        inside, is_own = place.names(_in(base, folder)) if folder else names, folder == side.folder
        if any(map(side.holds.fullmatch, inside)) or (is_own and side.may_be_flat and any(map(is_image, inside))):
            return Holder(side.of_folder, _in(base, folder))
        if is_own and any(name.endswith("/") for name in inside):
            return Holder(class_folders, _in(base, folder))
    return None


def _tars(names: list[str], official: str) -> list[str]:
    """Return the tars of a folder that may be an archive of both splits, the one with the official name first."""
    tars = [name for name in names if name.endswith(".tar") and not CLASS_TAR.fullmatch(name)]
    return sorted(tars, key=lambda name: not name.startswith(official)) if len(tars) <= MOST_TARS else []


def _in(base: str, name: str) -> str:
    return f"{base}/{name}".strip("/")


def _first(place: Place, name: str) -> str:
    """Return the name of a tar's first member; empty if it has none, or is not a tar."""
    try:
        return next(members(place.address(name))).name
    except (DataError, StopIteration):
        return ""


def _is_imagenets(found: Layout) -> bool:
    """Whether a flat val/, alone or next to an image folder's train/, has a file with its labels, or is ImageNet's."""
    assert found.val
    inside = found.place.names(found.val.name)
    if any(name.endswith("/") for name in inside):
        return False  # some images are sorted into folders, some are not: a fault of an image folder
    if labels_beside(found.place, found.beside):
        return True
    classes = [name.rstrip("/") for name in found.place.names(found.train.name)] if found.train else []
    return any(map(_VAL_IMAGE.fullmatch, inside)) and are_imagenet(classes)


def open_imagenet(place: Place, _options: ReadOptions) -> DataCopy:
    """Open a copy.

    Raises:
        ConfigError: nothing tells the labels of val/.
        DataError: it is damaged, or its images and labels do not fit together.
    """
    found = layout_of(place)
    if found is None:
        raise DataError(
            f"{place.given}: holds neither ImageNet's archives nor Kaggle's tree. Expected {TRAIN_TAR}.tar, "
            f"{VAL_TAR}.tar or {KAGGLE}. Leave out --kind, or give another one."
        )
    train, val = (holder and holder.indexer(found.place, holder.name) for holder in (found.train, found.val))
    classes, labels, source = train.classes if train else None, None, ""
    if val and val.classes is None:
        source, of_images = _labels(found, val, classes)
        classes = classes or sorted(set(of_images))
        label_of = {one: label for label, one in enumerate(classes)}
        labels = [label_of[one] for one in of_images]
    elif val:
        classes = classes or val.classes
    assert classes is not None
    splits = {"train": train.catalog(classes)} if train else {}
    if val:
        splits["val"] = val.catalog(classes, labels)
    remarks = [remark for images in (train, val) if images for remark in images.remarks]
    return DataCopy(_what(found), splits, classes, [*remarks, *_counts(splits, classes)], source)


def _labels(found: Layout, val: Images, classes: Sequence[str] | None) -> tuple[str, list[str]]:
    """Return what tells the labels of flat validation images, and the class of each."""
    labels = find_labels(found.place, found.beside)
    if labels is None:
        raise no_labels(val.files[0])
    return labels.source, classes_of(val.names, labels.read(), labels.where, classes)


def _what(found: Layout) -> str:
    if found.base:
        return "Kaggle's copy of ILSVRC2012"
    indexes = {holder.indexer for holder in (found.train, found.val) if holder}
    return "official archives of ILSVRC2012" if indexes - {class_folders, flat_folder} else "image folder, val/ flat"


def _counts(splits: dict[str, Catalog], classes: list[str]) -> list[str]:
    """Return a remark if a copy of ImageNet's classes is not whole."""
    odd = [
        f"{name}/ holds {len(catalog):,} of its {IMAGENET_IMAGES[name]:,} images"
        for name, catalog in splits.items()
        if len(catalog) != IMAGENET_IMAGES[name]
    ]
    if len(classes) != len(imagenet()):
        odd.append(f"{len(classes):,} of its {len(imagenet()):,} classes are here")
    return [f"{NOT_ALL}: {'; '.join(odd)}."] if odd and are_imagenet(classes) else []
