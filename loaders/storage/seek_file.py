"""Seek tables (`native.seek_table`) of an image folder: PATH/train.seek and PATH/val.seek, which `tools.seek` writes.

The file holds a header, five arrays with an entry per image (three for one more), and the tables. A table counts for a
file of the same name, size and modification time; the decoder checks in addition that it is of the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shlex
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import xxhash

from common.errors import counted
from common.whole_files import whole_file

MOST_BYTES = 600_000_000  # of an image's file: the pixels of the largest one that PIL opens take 537 MB
CHECKED = 1000  # images whose times are compared at the start of a run
_HEADER = struct.Struct("=8sQQ")  # magic with the version, columns of MCUs between entries, images
_MAGIC = b"seek\x01\r\n\0"
_ITEM = 8  # bytes of an array's element


def read_file(path: str | bytes | Path) -> tuple[bytes, os.stat_result]:
    """Return a file's contents and status; twice as fast as Path.read_bytes. OSError for more than MOST_BYTES."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        data = os.read(descriptor, status.st_size + 1)
        while len(data) != status.st_size and (more := os.read(descriptor, 1 << 20)):
            data += more
        return data, status
    finally:
        os.close(descriptor)


def keys_of(names: Iterable[bytes]) -> np.ndarray:
    """Return a hash of each image's CLASS/NAME, uint64 [N]."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, names), np.uint64)


def candidates(folder: Path) -> tuple[Path, Path]:
    """Return where the tables of a split's folder may be: next to it, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # works for an unknown user too
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return folder.with_name(f"{folder.name}.seek"), cache / "resnet-recipes" / "seek" / f"{name}-{folder.name}.seek"


class SeekFile:
    """An open file of tables.

    Attributes:
        every: as for `native.seek_table`.
        keys: of its images, uint64 [N].

    Raises:
        ValueError: it is not such a file, or not all of it.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # inherited by forked workers
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            header = file.read(_HEADER.size)
            magic, self.every, count = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0)
            size = os.fstat(self._descriptor).st_size
            if magic != _MAGIC or _start(count) > size:
                raise ValueError(f"{path}: is not a file of seek tables, or not all of it")
            self.keys = np.fromfile(file, np.uint64, count)
            self._sizes, self._times = (np.fromfile(file, np.int64, count) for _ in range(2))
            self._ends = np.fromfile(file, np.int64, count + 1)
        if self._ends[0] != _start(count) or self._ends[-1] != size or (np.diff(self._ends) < 0).any():
            raise ValueError(f"{path}: is damaged")

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            with contextlib.suppress(OSError, TypeError):  # `os` may be gone at the interpreter's exit
                os.close(self._descriptor)

    def __reduce__(self) -> tuple[type[SeekFile], tuple[Path]]:
        return SeekFile, (self.path,)  # another process opens it again

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Return the index in this file of each key, int64 [N]; -1 for those that it does not have."""
        if np.array_equal(keys, self.keys):
            return np.arange(len(keys))
        if not len(self.keys):
            return np.full(len(keys), -1)
        found = self._order[np.searchsorted(self.keys, keys, sorter=self._order).clip(max=len(self.keys) - 1)]
        return np.where(self.keys[found] == keys, found, -1)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.keys, kind="stable")

    def fits(self, place: int, status: os.stat_result) -> bool:
        """Whether an image's file is the one that the table at `place` was made of, by its size and time."""
        return bool(place >= 0 and self._sizes[place] == status.st_size and self._times[place] == status.st_mtime_ns)

    def table(self, place: int) -> bytes:
        """Return a table; empty for an image that cannot have one, or if it cannot be read."""
        begin, end = int(self._ends[place]), int(self._ends[place + 1])
        with contextlib.suppress(OSError):
            return os.pread(self._descriptor, end - begin, begin)
        return b""


def _start(count: int) -> int:
    """Return the offset of the first table."""
    return _HEADER.size + _ITEM * (4 * count + 1)


def write(path: Path, every: int, keys: np.ndarray, entries: Iterable[tuple[os.stat_result | None, bytes]]) -> None:
    """Write a file of tables, which replaces an earlier one at the end.

    Args:
        path: of the file.
        every: as for `native.seek_table`.
        keys: of all images.
        entries: status (None if its file could not be read) and table of each image in this order, or of the first.
    """
    sizes, times, lengths = (np.full(len(keys), missing, np.int64) for missing in (-1, -1, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(_start(len(keys))))
        for n, (status, table) in enumerate(entries):
            file.write(table)
            lengths[n] = len(table)
            if status:
                sizes[n], times[n] = status.st_size, status.st_mtime_ns
        ends = _start(len(keys)) + np.concatenate([[0], np.cumsum(lengths)])
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, every, len(keys)))
        for array in (keys, sizes, times, ends):
            file.write(array.tobytes())


def open_tables(folder: Path) -> SeekFile | None:
    """Open the newest tables of a split's folder; None if there are none. Raises as SeekFile."""
    found = [path for path in candidates(folder) if path.is_file()]
    return SeekFile(max(found, key=lambda path: path.stat().st_mtime)) if found else None


class FolderTables:
    """The tables of a split's images, if there are any.

    Args:
        folder: of the split.
        count: number of images.
        name_of: CLASS/NAME of an image.
    """

    def __init__(self, folder: Path, count: int, name_of: Callable[[int], bytes]) -> None:
        self._folder, self._count, self._name_of = folder, count, name_of
        self.file: SeekFile | None = None
        self._damaged: str | None = None
        try:
            self.file = open_tables(folder)
            if self.file:
                self._places = self.file.places(keys_of(map(name_of, range(count))))
        except (ValueError, OSError) as error:
            self._damaged = str(error)

    def of(self, index: int, status: os.stat_result) -> bytes | None:
        """Return the table of an image's file, which may be empty; None if there is none for this state of it."""
        place = int(self._places[index]) if self.file else -1
        return self.file.table(place) if self.file and self.file.fits(place, status) else None

    def remark(self, most: int = CHECKED) -> str | None:
        """Say that the tables are damaged or out of date, after looking at `most` images; None if not."""
        command = shlex.join(["python", "-m", "tools.seek", str(self._folder.parent)])
        if self.file and self.file.every:
            command += f" --every {self.file.every}"
        if self._damaged:
            return f"{self._damaged}. Images are decoded without seek tables; to make them again: {command}"
        chosen = np.unique(np.linspace(0, self._count - 1, min(most, self._count)).astype(int)).tolist()
        stale = sum(map(self._is_stale, chosen)) if self.file else 0
        if not (self.file and stale):
            return None
        images = counted(stale, "is new or has changed since, and is", "are new or have changed since, and are")
        return f"{self.file.path}: out of date. Of {len(chosen):,} images {images} decoded without it. Type: {command}"

    def _is_stale(self, index: int) -> bool:
        with contextlib.suppress(OSError):  # reading the image will report it
            return self.of(index, os.stat(os.path.join(os.fsencode(self._folder), self._name_of(index)))) is None
        return False
