"""What holds the images of one split, by class or flat: tars and folders, indexed without reading an image."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from common.errors import DataError, counted, named
from common.folders import S3Folder
from loaders.archives.catalog import Catalog, Reader, Rows, numbered
from loaders.archives.place import Place, file_sizes, ranges, read_file, read_range
from loaders.archives.tars import Member, members
from loaders.storage.imagefolder import is_image, list_split
from loaders.transport.remote import is_remote, join

CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
THREADS = 16  # that wait for a store, or for a network file system


@dataclass(frozen=True)
class Images:
    """The images of a split; the labels of `rows` count `classes`, and are 0 if these are None."""

    files: Sequence[str]
    reader: Reader
    rows: Rows
    classes: list[str] | None = None
    remarks: list[str] = field(default_factory=list)

    def catalog(self, classes: Sequence[str], labels: Sequence[int] | None = None) -> Catalog:
        """Return the images as an image folder orders them, given all classes by label, and the labels of flat ones."""
        catalog = self.rows.catalog(self.files, self.reader)
        if self.classes is not None:
            if lacking := sorted(set(self.classes) - set(classes)):
                count = counted(len(lacking), "class", "classes")
                raise DataError(f"{self.files[0]}: has {count} that train/ lacks ({named(lacking)}).")
            place = {name: label for label, name in enumerate(classes)}
            labels = [place[self.classes[label]] for label in self.rows.labels]
        catalog.labels[:] = labels
        return catalog.by_name()

    @property
    def names(self) -> list[str]:
        """The images' names, without folders."""
        return [os.fsdecode(name.rpartition(b"/")[2]) for name in self.rows.names]


class Holder(NamedTuple):
    """What holds a split in a place."""

    indexer: Callable[[Place, str], Images]  # one of the functions below
    name: str  # of the file or folder


def tar_of_tars(place: Place, name: str) -> Images:
    """Index a tar that holds a tar per class."""
    address = place.address(name)
    inner = [(member, _class_of(member.name, address)) for member in members(address)]
    return _of_tars([address], [(0, member, one) for member, one in inner])


def class_tars(place: Place, folder: str) -> Images:
    """Index a folder of a tar per class."""
    names = [f"{folder}/{name}".lstrip("/") for name in place.names(folder) if CLASS_TAR.fullmatch(name)]
    files = [place.address(name) for name in names]
    whole = [Member(name, 0, ranges(file).size) for name, file in zip(names, files, strict=True)]
    return _of_tars(files, [(at, one, _class_of(one.name, files[at])) for at, one in enumerate(whole)])


def class_folders(place: Place, folder: str) -> Images:
    """Index a folder of a folder per class."""
    address = place.address(folder)
    if is_remote(address):
        found = sorted((name, size) for name, size, _ in S3Folder(address).walk() if "/" in name and is_image(name))
        classes, labels = numbered([name.partition("/")[0] for name, _ in found])
        rows = Rows()
        for (name, size), label in zip(found, labels, strict=True):
            rows.add(0, name, 0, size, label)
        return Images([address], read_file, rows, classes)
    classes, per_class, remarks, fault = list_split(Path(address))
    if fault:
        raise DataError(fault)
    each = [(f"{one}/{name}", label) for label, one in enumerate(classes) for name in per_class[label]]
    return Images([address], read_file, rows_of(address, each), classes, remarks)


def flat_tar(place: Place, name: str) -> Images:
    """Index a tar of images."""
    address, rows = place.address(name), Rows()
    _add_images(rows, 0, members(address), 0, address)
    return Images([address], read_range, rows)


def flat_folder(place: Place, folder: str) -> Images:
    """Index a folder of images."""
    address = place.address(folder) if folder else place.root
    if is_remote(address):
        rows = Rows()
        for name, size, _ in S3Folder(address).walk():
            if "/" not in name and is_image(name):
                rows.add(0, name, 0, size, 0)
        return Images([address], read_file, rows)
    return Images([address], read_file, rows_of(address, [(one, 0) for one in place.names(folder) if is_image(one)]))


def _class_of(name: str, where: str) -> str:
    if (match := CLASS_TAR.fullmatch(name)) is None:
        raise DataError(f"{where}: its member {name} is not a class's archive, as n01440764.tar is. Download it again.")
    return match[1]


def _of_tars(files: Sequence[str], tars: Sequence[tuple[int, Member, str]]) -> Images:
    """Index the tars of classes: for each its file, where it is in that, and its class."""
    classes, labels = numbered([one for _, _, one in tars])
    if twice := sorted(
        {one for one, label in zip(classes, range(len(classes)), strict=True) if labels.count(label) > 1}
    ):
        raise DataError(f"{files[0]}: has more than one archive of {named(twice)}. Remove all but one.")

    def index(tar: tuple[int, Member, str], label: int) -> Rows:
        (file, (name, start, size), _), rows = tar, Rows()
        nested = "" if start == 0 else name
        _add_images(rows, file, members(files[file], start, size, nested), label, f"{files[file]}, {name}")
        return rows

    rows = Rows()
    if any(map(is_remote, files)):
        with ThreadPoolExecutor(THREADS) as pool:
            rows.extend(pool.map(index, tars, labels))
    else:
        rows.extend(map(index, tars, labels))
    return Images(files, read_range, rows, classes)


def _add_images(rows: Rows, file: int, images: Iterable[Member], label: int, where: str) -> None:
    """Add the members of a tar, which must be images."""
    before = len(rows.names)
    for name, offset, size in images:
        if not is_image(name):
            raise DataError(f"{where}: its member {name} is not an image by its name. Download it again.")
        rows.add(file, name, offset, size, label)
    if len(rows.names) == before:
        raise DataError(f"{where}: holds no images. Download it again.")


def rows_of(folder: str, names: Sequence[tuple[str, int]]) -> Rows:
    """Return the files of a folder, given their names and labels."""
    rows = Rows()
    sizes = file_sizes([join(folder, name) for name, _ in names]).clip(min=0)  # reading a missing one reports it
    for (name, label), size in zip(names, sizes.tolist(), strict=True):
        rows.add(0, name, 0, size, label)
    return rows
