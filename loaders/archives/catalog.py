"""The images of one split, wherever they lie: for each, the file that holds it, its place there, and its label."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError, counted
from loaders.archives.place import read_file
from loaders.class_names import MOST_CLASSES
from loaders.storage.seek_file import MOST_BYTES
from loaders.transport.remote import is_remote, join

AHEAD = 8  # images in flight, of a process that reads from a store: each takes tens of milliseconds
Reader = Callable[[str, str, int, int], bytes]
"""Return an image's bytes, given its file, its name, its offset and its size; a function at a module's top level.

Raises a DataError, which names the image, if it cannot be read.
"""


@dataclass(frozen=True, eq=False)
class Catalog:
    """The images of one split; the arrays have one item per image. Pickled, a part of one is small."""

    files: Sequence[str]  # paths or addresses of the files (or the folder) that hold images
    reader: Reader
    file: np.ndarray  # indices of `files`, int32 [N]
    names: np.ndarray  # of the image in its file, bytes [N]
    offsets: np.ndarray  # of its first byte, or what else the reader finds it by, int64 [N]
    sizes: np.ndarray  # bytes, int64 [N]
    labels: np.ndarray  # int64 [N]
    mixed: bool = False  # whether the classes are mixed already, so that a conversion keeps the order

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | slice) -> Self:
        """Return a catalog of these images, in this order."""
        chosen = {name: getattr(self, name)[indices] for name in ("names", "offsets", "sizes", "labels")}
        used, file = np.unique(self.file[indices], return_inverse=True)  # the other files' names would be pickled too
        return replace(self, files=[self.files[at] for at in used], file=file.astype(np.int32), **chosen)

    def read(self, index: int) -> bytes:
        """Return an image's bytes; raises a DataError if it cannot be read, or is too large: gzip hides that."""
        if (size := int(self.sizes[index])) > MOST_BYTES:
            raise DataError(f"{self.name_of(index)}: has {size:,} bytes, too many for an image. Replace or delete it.")
        file, name = self.files[self.file[index]], self.name(index)
        return self.reader(file, name, int(self.offsets[index]), size)

    def reads_in_order(self) -> Callable[[int], bytes]:
        """Return a function like `read` for indices in rising order; images in a store are fetched ahead of them."""
        return _Ahead(self).read if any(map(is_remote, self.files)) else self.read

    def name(self, index: int) -> str:
        """Return an image's name in its file."""
        return self.names[index].decode("utf-8", "surrogateescape")

    def name_of(self, index: int) -> str:
        """Return where an image is, for messages."""
        file = without_credentials(self.files[self.file[index]])
        return join(file, self.name(index)) if self.reader is read_file else f"{file}, {self.name(index)}"

    def by_name(self) -> Self:
        """Return the images as an image folder orders them, by class and name, whatever the order in the archive."""
        stems = np.char.rpartition(self.names, b"/")[:, 2] if len(self) else self.names
        return replace(self.take(np.lexsort((stems, self.labels))), mixed=False)

    def fingerprint(self, classes: Sequence[str] | None) -> str:
        """Return a hash of all that a conversion's bytes depend on."""
        digest = hashlib.sha256(json.dumps(list(classes) if classes else None).encode())
        for values in (self.names, self.labels, self.sizes):
            digest.update(values.tobytes())
        return digest.hexdigest()


class _Ahead:
    """Images of a catalog, of which AHEAD are in flight."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._pool = catalog, ThreadPoolExecutor(AHEAD)
        self._flying: dict[int, Future[bytes]] = {}

    def read(self, index: int) -> bytes:
        """As Catalog.read."""
        for one in range(index, min(index + AHEAD, len(self._catalog))):
            if one not in self._flying:
                self._flying[one] = self._pool.submit(self._catalog.read, one)
        return self._flying.pop(index).result()


def _numbers() -> array[int]:
    return array("q")


@dataclass
class Rows:
    """Images of a split, added one by one."""

    file: array[int] = field(default_factory=_numbers)
    names: list[bytes] = field(default_factory=list)
    offsets: array[int] = field(default_factory=_numbers)
    sizes: array[int] = field(default_factory=_numbers)
    labels: array[int] = field(default_factory=_numbers)

    def add(self, file: int, name: str, offset: int, size: int, label: int) -> None:
        """Add an image; the arguments are as in Catalog."""
        self.file.append(file)
        self.names.append(name.encode("utf-8", "surrogateescape"))
        self.offsets.append(offset)
        self.sizes.append(size)
        self.labels.append(label)

    def extend(self, others: Iterable[Rows]) -> None:
        """Add the images of others, in their order."""
        for other in others:
            for name in ("file", "names", "offsets", "sizes", "labels"):
                getattr(self, name).extend(getattr(other, name))

    def catalog(self, files: Sequence[str], reader: Reader, *, mixed: bool = False) -> Catalog:
        """Return the images as a Catalog."""
        file = np.array(self.file, np.int32)
        offsets, sizes, labels = (np.array(values, np.int64) for values in (self.offsets, self.sizes, self.labels))
        names = np.array(self.names, np.bytes_) if self.names else np.empty(0, "S1")
        return Catalog(files, reader, file, names, offsets, sizes, labels, mixed)


@dataclass(frozen=True)
class DataCopy:
    """A data set in some form, opened."""

    what: str  # what it is, for a person: `WebDataset tars`
    splits: dict[str, Catalog]  # `train`, `val`, or UNSPLIT alone
    classes: list[str] | None  # by label; None if they have no names
    remarks: list[str] = field(default_factory=list)  # one sentence each
    val_labels: str = ""  # what tells the labels of val/, if it is another file

    @property
    def headline(self) -> str:
        """What it is and what it holds, in a line."""
        counts = " + ".join(f"{len(catalog):,}" for catalog in self.splits.values())
        only = f" of {next(iter(self.splits))}/" if len(self.splits) == 1 and UNSPLIT not in self.splits else ""
        classes = f", {counted(len(self.classes), 'class', 'classes')}" if self.classes else ""
        labels = f"; labels of val/ from {self.val_labels}" if self.val_labels else ""
        return f"{self.what}: {counts} images{only}{classes}{labels}"


UNSPLIT = "all"  # key of the images of a data set that has no train and val


def numbered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the sorted classes of images whose labels are names, and each image's label."""
    classes = sorted(set(names))
    label_of = {name: label for label, name in enumerate(classes)}
    return classes, [label_of[name] for name in names]


def check_labels(labels: np.ndarray, classes: Sequence[str] | None, where: Callable[[int], str]) -> None:
    """Raise a DataError at the first image whose label, of int64 [N], is not that of a class.

    `where` returns the place of an image, given its index.
    """
    most = MOST_CLASSES if classes is None else len(classes)
    for index in np.flatnonzero((labels < 0) | (labels >= most))[:1].tolist():
        raise DataError(f"{where(index)}: its label is {labels[index]}; labels are from 0 to {most - 1:,}.")
