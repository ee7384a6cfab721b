"""Read samples from memory-mapped MDS shard files; mosaicml-streaming needs an open and three system calls each."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from loaders.images.decoding import Source, Stored
from loaders.storage.columns import Columns
from loaders.transport.shard_cache import ShardCache

_POPULATE_READ = 22  # MADV_POPULATE_READ of linux/mman.h, since Linux 5.14
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

T = TypeVar("T")
MOST_OPEN = 256  # files per process: well below the usual limit of 1,024


class _File:
    """An open shard and the offsets of its samples; closed when its last reader is done.

    Raises:
        ValueError: it is not a shard with this number of samples.
    """

    def __init__(self, descriptor: int, samples: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        with contextlib.suppress(OSError, ValueError):  # an empty file cannot be mapped; some file systems map none
            self._map = mmap.mmap(self._descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            self._address = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        header = bytes(self.borrow(0, 4 * (samples + 2)))
        numbers = np.frombuffer(header[: len(header) // 4 * 4], np.uint32)
        if len(numbers) != samples + 2 or numbers[0] != samples:
            raise ValueError(f"it does not start like a shard of {samples} samples")
        self.offsets = numbers[1:]

    def borrow(self, begin: int, end: int) -> bytes | memoryview:
        """Return a range of bytes, or fewer at the end of the file: of the mapping, or if it cannot be mapped, read."""
        page = begin & -mmap.PAGESIZE
        # Populate the pages first: a page fault would hold the GIL while the disk is slow, and a disk error would be a
        # bus error.
        if self._map is None or self._map.size() < end or _madvise(self._address + page, end - page, _POPULATE_READ):
            return os.pread(self._descriptor, end - begin, begin)
        return memoryview(self._map)[begin:end]

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_descriptor"):
            close(self._descriptor)  # an argument, because `os` may be gone at the interpreter's exit


class OpenFiles(Generic[T]):
    """The open files of a cache by number, each made by `opened` from its descriptor and its number.

    Forked workers and threads share them.
    """

    def __init__(self, cache: ShardCache, opened: Callable[[int, int], T]) -> None:
        self._cache, self._opened = cache, opened
        self._open: dict[int, T] = {}

    def __getitem__(self, shard: int) -> T:
        """Return an open file, fetched if needed; if two threads open it at once, one more closes with its reader."""
        file = self._open.get(shard)
        if file is None:
            while len(self._open) >= (MOST_OPEN if self._cache.limit is None else 1):  # an open shard is not evicted
                with contextlib.suppress(RuntimeError, StopIteration):  # another thread is evicting too
                    self._open.pop(next(iter(self._open)), None)
            file = self._open[shard] = self._opened(self._cache.open(shard), shard)
        return file


class ShardFiles:
    """Reader for the samples in uncompressed shard files, which the cache downloads if needed."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._columns = [Columns(entry) for entry in cache.shards]
        self._open = OpenFiles(cache, self._opened)

    def read(self, shard: int, index: int) -> tuple[Source, int]:
        """Return the image and the label of one sample of a shard, copied, so that they do not depend on its file.

        Raises:
            DataError: the shard cannot be downloaded.
            ValueError: the file ends too early or is not a shard, or the sample does not hold an image and a label.
        """
        return self._columns[shard].read(bytes(self._data(shard, index)))

    def borrow(self, shard: int, index: int) -> tuple[Stored, int]:
        """Return the same with its seek table, and without a copy: an encoded image keeps its file open."""
        data = self._data(shard, index)
        if self._cache.limit is not None:
            data = bytes(data)  # an open shard is not evicted
        return self._columns[shard].borrow(memoryview(data))

    def _opened(self, descriptor: int, shard: int) -> _File:
        return _File(descriptor, self._cache.shards[shard]["samples"])

    def _data(self, shard: int, index: int) -> bytes | memoryview:
        file = self._open[shard]
        begin, end = int(file.offsets[index]), int(file.offsets[index + 1])
        data = file.borrow(begin, end)
        if len(data) != end - begin:
            raise ValueError(f"it ends before byte {end}, in the middle of a sample")
        return data
