"""A folder or a single file, on a disk or in S3: its names, and reading at any offset."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from common import s3
from common.addresses import is_s3, without_credentials
from common.errors import DataError
from common.folders import open_folder
from common.store_faults import fault
from loaders.storage import seek_file
from loaders.transport.remote import is_remote, join

STAT_THREADS = 16  # a network file system answers one request per round trip
_STAT_CHUNK = 1024  # files
OPEN_FILES = 256  # of a process, at most
READ_AHEAD = {False: 4096, True: 1 << 16}  # bytes, by libraries that read a file: on a disk, in a store
SCANNED = {False: 4096, True: 1 << 22}  # the same while a file is indexed: a store takes longer to answer than to send
GZIPPED = (".tar.gz", ".tgz")
TARS = (".tar", *GZIPPED)
SUFFIXES = (*TARS, ".csv", ".tsv", ".jsonl", ".parquet", ".tfrecord")  # of single files, whose kind a name must tell


class Place:
    """Where a data set is: a folder, or one file of it alone (`only`)."""

    def __init__(self, address: str) -> None:
        self.given = without_credentials(address)
        is_file = address.endswith(SUFFIXES) if is_s3(address) else os.path.isfile(address)
        folder, _, name = address.rpartition("/") if is_file else (address, "", "")
        self.only: str | None = name or None
        self.root = folder or ("/" if address.startswith("/") else ".")
        self.folder = open_folder(self.root)
        self._names: dict[str, list[str]] = {}  # of its folders, because every form looks at them

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder of it, those of folders with a slash at the end; none if it is absent."""
        if folder not in self._names:
            self._names[folder] = self.folder.names(folder)
        names = self._names[folder]
        return [name for name in names if name == self.only] if self.only and not folder else names

    def dangling(self) -> list[str]:
        """Return the links to nothing in the folders that `names` has listed; none in a store."""
        found = []
        for folder in [] if self.only or is_remote(self.root) else self._names:
            path = os.path.join(self.root, folder)
            links = (entry for entry in os.scandir(path) if entry.is_symlink()) if os.path.isdir(path) else ()
            found += [os.path.join(folder, link.name) for link in links if not os.path.exists(link.path)]
        return sorted(found)

    def address(self, name: str) -> str:
        """Return the path or address of a file in it."""
        return join(self.root, name) if self.root != "." or is_remote(self.root) else name

    def read(self, name: str) -> bytes:
        """Return a small file's bytes; raises a DataError if it cannot be read."""
        return self.folder.read(name)


def is_tar(name: str) -> bool:
    """Whether a file's name is a tar archive's, compressed by gzip or not."""
    return name.endswith(TARS) and not name.startswith("._")


def file_sizes(paths: Sequence[str]) -> np.ndarray:
    """Return the bytes of files on a disk, int64 [N]; -1 for what is not a plain file."""
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        chunks = (paths[start : start + _STAT_CHUNK] for start in range(0, len(paths), _STAT_CHUNK))
        return np.array([size for sizes in pool.map(_sizes, chunks) for size in sizes], np.int64)


def _sizes(paths: Sequence[str]) -> list[int]:
    sizes = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                sizes.append(status.st_size)
                continue
        sizes.append(-1)
    return sizes


class Ranges(Protocol):
    """A file that is read at any offset."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the file; raises a DataError if they cannot be read."""


class DiskRanges:
    """A file on a disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, "rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error
        self.size = os.fstat(self._file.fileno()).st_size
        weakref.finalize(self, self._file.close)

    def read(self, offset: int, size: int) -> bytes:
        """As Ranges.read."""
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}).") from error


class StoreRanges:
    """An object in S3."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.size = s3.size_of(address)
        self._scanned = (0, b"")  # offset and bytes of what indexing has read last, in which labels lie

    def read(self, offset: int, size: int) -> bytes:
        """As Ranges.read."""
        indexing, size = size == SCANNED[True], min(size, self.size - offset)
        if size <= 0:
            self._scanned = (0, b"")  # the index is complete
            return b""
        start, scanned = self._scanned
        if start <= offset and offset + size <= start + len(scanned):
            return scanned[offset - start : offset - start + size]
        try:
            data = s3.read_range(self.address, offset, size)
        except DataError:
            raise
        except Exception as error:
            raise fault(error, self.address) from error
        if indexing:
            self._scanned = (offset, data)
        return data


def ranges(address: str) -> Ranges:
    """Open a file, once per process, one that gzip has compressed as the file inside; DataError if it is not there."""
    if address.endswith(GZIPPED):
        from loaders.archives.gzips import gzip_ranges

        return gzip_ranges(address)
    return plain_ranges(address)


@functools.lru_cache(maxsize=OPEN_FILES)
def plain_ranges(address: str) -> Ranges:
    """Open a file as it is, once per process; raises a DataError if it cannot be read."""
    if is_s3(address):
        return StoreRanges(address)
    if is_remote(address):
        raise DataError(f"{without_credentials(address)}: archives are read on disks and in s3:// only. Copy it here.")
    return DiskRanges(address)


class _Stream(io.RawIOBase):
    """A file object over Ranges."""

    def __init__(self, source: Ranges, start: int, size: int | None) -> None:
        self._source, self._start, self._size, self._at = source, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._source.size - self._start if self._size is None else self._size
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = len(buffer) if self._size is None else max(0, min(len(buffer), self._size - self._at))
        data = self._source.read(self._start + self._at, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def stream(
    address: str, start: int = 0, size: int | None = None, ahead: Mapping[bool, int] = READ_AHEAD
) -> io.BufferedReader:
    """Open a file, or `size` bytes of it from `start`, as a file object that reads ahead, for libraries."""
    return io.BufferedReader(_Stream(ranges(address), start, size), ahead[is_remote(address)])


def read_range(file: str, name: str, offset: int, size: int) -> bytes:
    """Return an image that lies in a file as it is (a catalog's Reader)."""
    data = ranges(file).read(offset, size)
    if len(data) != size:
        raise DataError(f"{without_credentials(file)}, {name}: the file has been truncated. Copy it again.")
    return data


def read_file(folder: str, name: str, _offset: int, _size: int) -> bytes:
    """Return an image that is a file of its own in a folder (a catalog's Reader)."""
    if is_remote(folder):
        return open_folder(folder).read(name)
    path = os.path.join(folder, name)
    try:
        return seek_file.read_file(path)[0]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error
