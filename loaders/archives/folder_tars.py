"""Tars of an image folder, .tar or .tgz, such as imagenette's: train/CLASS/*.JPEG and val/CLASS/*.JPEG inside."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from common.errors import DataError, counted, named
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy, Rows
from loaders.archives.forms import ReadOptions
from loaders.archives.order import near
from loaders.archives.place import GZIPPED, Place, is_tar, plain_ranges, read_range
from loaders.archives.splits import SPLIT_OF, TEST, check_classes, split_of
from loaders.archives.tars import members
from loaders.storage.imagefolder import EXTENSIONS, OF_PROGRAMS, is_of_a_program

WITHIN_REACH = 4 << 30  # bytes of .tgz files, up to which any image is decompressed as fast as it is decoded
STRETCH = 1 << 23  # bytes of larger ones that are read in one go


class Inside(NamedTuple):
    """Where an image belongs."""

    split: str
    one: str  # its class
    name: str  # its path below the class's folder
    by_folder: bool  # whether a folder, train/ or val/, tells the split


_HUGGING_FACE = re.compile(r"(train|val|test)_images(_\d+)?\.tar\.gz")
_WITH_CLASS = re.compile(r"(.*)_(n\d{8})(\.\w+)")


def is_folder_tar(place: Place) -> bool:
    """Whether a place is a tar, or holds tars and no folders: what is in them shows when they are opened."""
    names = place.names()
    return any(map(is_tar, names)) and not any(name.endswith("/") for name in names)


def open_folder_tar(place: Place, _options: ReadOptions) -> DataCopy:
    """Open tars: images in folders, below train/ and val/ or in tars of these names."""
    tars = [name for name in place.names() if is_tar(name)]
    found = _Found([place.address(name) for name in tars])
    for file, name in enumerate(tars):
        found.index(file, partial(_in_folders, split_of(name) or UNSPLIT))
    found.settle_folders()
    if not any(found.inside):
        what = (
            "other archives; unpack it once"
            if {".tar", ".tgz", ".gz", ".zip"} & set(found.others)
            else "no images in folders"
        )
        raise DataError(
            f"{place.given}: holds {what}. Tars may hold train/CLASS/*.JPEG and val/CLASS/*.JPEG, or NAME.jpg and "
            "NAME.cls, as WebDataset's do."
        )
    return found.copy("tars of an image folder", place.given)


def hugging_face_tars(place: Place) -> list[str]:
    """Return the tars of Hugging Face's former copy of ImageNet: train_images_0.tar.gz, val_images.tar.gz, ..."""
    for folder in ("", "data"):
        if tars := [name for name in place.names(folder) if _HUGGING_FACE.fullmatch(name)]:
            return [f"{folder}/{name}".lstrip("/") for name in tars]
    return []


def is_hugging_face_tars(place: Place) -> bool:
    """Whether a place holds such tars."""
    return bool(hugging_face_tars(place))


def open_hugging_face_tars(place: Place, _options: ReadOptions) -> DataCopy:
    """Open such tars; the class of an image is in its name, as in n01440764_10026_n01440764.JPEG."""
    tars = hugging_face_tars(place)
    found = _Found([place.address(name) for name in tars])
    for file, name in enumerate(tars):
        match = _HUGGING_FACE.fullmatch(os.path.basename(name))
        assert match is not None
        if match[1] == TEST:
            found.remarks.append(f"{name} is left out: test images have no labels.")
        else:
            found.index(file, partial(_by_last_word, match[1]))
    return found.copy("tars of Hugging Face's former ImageNet", place.given)


def _by_last_word(split: str, path: str) -> Inside | None:
    match = _WITH_CLASS.fullmatch(os.path.basename(path))
    return Inside(split, match[2], match[1] + match[3], True) if match else None


def _in_folders(split: str, path: str) -> Inside | None:
    """Return where a path says that an image belongs; without train/ or val/, all of its folders are its class."""
    *folders, name = path.removeprefix("./").split("/")
    splits = [at for at, folder in enumerate(folders[:-1]) if folder.lower() in SPLIT_OF]
    if splits:
        one, *below = folders[splits[0] + 1 :]
        return Inside(SPLIT_OF[folders[splits[0]].lower()], one, "/".join([*below, name]), True)
    return Inside(split, "/".join(folders), name, False) if folders and folders[-1].lower() not in SPLIT_OF else None


class _Found:
    """The images that have been found so far, and the other files."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self.rows = Rows()
        self.inside: list[Inside | None] = []  # of each row; None if it is left out after all
        self.others: Counter[str] = Counter()  # files that are ignored, by extension
        self.remarks: list[str] = []

    def index(self, file: int, inside: Callable[[str], Inside | None]) -> None:
        """Add the images of a tar; `inside` returns None for those that do not belong to the data set."""
        for member in members(self.files[file]):
            base, extension = os.path.splitext(os.path.basename(member.name))
            belongs = extension.lower() in EXTENSIONS and not base.startswith("._")
            if belongs and (found := inside(member.name)):
                self.inside.append(found)
                self.rows.add(file, member.name, member.offset, member.size, 0)
            else:
                self.others[extension or base] += 1

    def settle_folders(self) -> None:
        """Where no image is below train/ or val/, the classes are the folders in the folder that holds all of them."""
        known = any(found and found.by_folder for found in self.inside)
        folders = {found.one for found in self.inside if found}
        common = os.path.commonpath([f"/{one}" for one in folders]) if len(folders) > 1 else ""
        for index, found in enumerate(self.inside):
            if found is None or found.by_folder:
                continue
            first, *below = f"/{found.one}".removeprefix(common).lstrip("/").split("/")
            settled = Inside(found.split, first, "/".join([*below, found.name]), False)
            self.inside[index] = settled if first and not known else None

    def copy(self, what: str, given: str) -> DataCopy:
        """Return the data set; raises a DataError if an image is there twice, or if the splits have other classes."""
        rows = [(found, index) for index, found in enumerate(self.inside) if found]
        classes = sorted({found.one for found, _ in rows if found.split != TEST})
        label_of = {one: label for label, one in enumerate(classes)}
        rows.sort(key=lambda row: (row[0].split, row[0].one, _as_listed(row[0].name)))
        whole, splits = self.rows.catalog(self.files, read_range), dict[str, Catalog]()
        for (found, index), (other, _) in itertools.pairwise(rows):
            if found[:3] == other[:3]:
                raise DataError(f"{whole.name_of(index)}: is there twice. Write the archive again.")
        for split, group in itertools.groupby(rows, lambda row: row[0].split):
            chosen = list(group)
            labels = np.array([label_of.get(found.one, 0) for found, _ in chosen], np.int64)
            splits[split] = replace(whole.take(np.array([index for _, index in chosen])), labels=labels)
        if tests := splits.pop(TEST, None):
            self.remarks.append(f"{counted(len(tests), 'test image is', 'test images are')} left out.")
        of_splits = {name: {classes[label] for label in np.unique(found.labels)} for name, found in splits.items()}
        check_classes(given, of_splits)
        if self.others:
            one, many = "file is not an image of a class, and is", "files are not images of a class, and are"
            self.remarks.append(f"{counted(self.others.total(), one, many)} ignored ({named(sorted(self.others))}).")
        folders = {folder for found, _ in rows for folder in [found.one, *found.name.split("/")[:-1]]}
        if programs := sorted(filter(is_of_a_program, folders)):
            self.remarks.append(f"{named(programs)} {OF_PROGRAMS}")
        return DataCopy(what, self._within_reach(splits), classes, self.remarks)

    def _within_reach(self, splits: dict[str, Catalog]) -> dict[str, Catalog]:
        """Return the splits, in an order that reads large files of gzip by stretches."""
        if sum(plain_ranges(file).size for file in self.files if file.endswith(GZIPPED)) <= WITHIN_REACH:
            return splits
        ordered = {}
        for split, catalog in splits.items():
            as_stored = replace(catalog.take(np.lexsort((catalog.offsets, catalog.file))), mixed=True)
            stretches = as_stored.file.astype(np.int64) * (1 << 40) + as_stored.offsets // STRETCH
            ordered[split] = near(as_stored, stretches) if split != "val" else as_stored
        return ordered


def _as_listed(name: str) -> list[tuple[bool, str]]:
    """Return what sorts the paths in a class's folder as an image folder does: a folder's files before its folders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]
