"""Samples straight out of mapped MDS shard files, instead of mosaicml-streaming's open and three system calls each."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable

import numpy as np

from loaders.images.decoding import Source
from loaders.storage.columns import Columns
from loaders.transport.shard_cache import ShardCache

_POPULATE_READ = 22  # MADV_POPULATE_READ of linux/mman.h, from Linux 5.14 on
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

MOST_OPEN = 256  # files per process: well below the 1,024 that a process may usually have open


class _File:
    """An open shard and where its samples begin; closed when nobody reads it any more, not sooner.

    Args:
        descriptor: of the shard.
        samples: how many it should hold.

    Raises:
        ValueError: it is no such shard.
    """

    def __init__(self, descriptor: int, samples: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        with contextlib.suppress(OSError, ValueError):  # no file system maps an empty file, and some none at all
            self._map = mmap.mmap(self._descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            self._address = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        header = self.read(0, 4 * (samples + 2))
        numbers = np.frombuffer(header[: len(header) // 4 * 4], np.uint32)
        if len(numbers) != samples + 2 or numbers[0] != samples:
            raise ValueError(f"it does not begin like a shard of {samples} samples")
        self.offsets = numbers[1:]

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from one place to another; fewer where the file ends.

        The kernel is asked for the pages first. Touched without that, they would let no other thread go on while the
        disk is slow, and end the program with a bus error where it fails. What the map cannot give is read.
        """
        page = begin & -mmap.PAGESIZE
        if self._map is None or self._map.size() < end or _madvise(self._address + page, end - page, _POPULATE_READ):
            return os.pread(self._descriptor, end - begin, begin)
        return self._map[begin:end]

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_descriptor"):
            close(self._descriptor)  # when the interpreter ends, `os` may be gone


class ShardFiles:
    """Reads the columns x and y of samples in uncompressed shard files, by shard and place in it.

    The files are mapped, so that forked workers and threads share them, and a sample is copied out of the map: whoever
    decodes it does not depend on the file any more.

    Args:
        cache: has the files, or fetches them when they are read.
    """

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._columns = [
            Columns(entry["column_names"], entry["column_encodings"], entry["column_sizes"]) for entry in cache.shards
        ]
        self._open: dict[int, _File] = {}

    def read(self, shard: int, place: int) -> tuple[Source, int]:
        """The image and the label of one sample.

        Raises:
            DataError: the shard cannot be fetched.
            WrongValue: the sample holds something else.
            ValueError: the file ends too early, or is no shard.
        """
        file = self._file(shard)
        begin, end = int(file.offsets[place]), int(file.offsets[place + 1])
        data = file.read(begin, end)
        if len(data) != end - begin:
            raise ValueError(f"it ends before byte {end}, in the middle of a sample")
        return self._columns[shard].read(data)

    def _file(self, shard: int) -> _File:
        """A shard's open file. Two threads may open it twice; the one that is forgotten closes with its reader."""
        file = self._open.get(shard)
        if file is None:
            while len(self._open) >= (MOST_OPEN if self._cache.limit is None else 1):  # an open shard is not evicted
                with contextlib.suppress(RuntimeError, StopIteration):  # another thread is at it as well
                    self._open.pop(next(iter(self._open)), None)
            file = self._open[shard] = _File(self._cache.open(shard), self._cache.shards[shard]["samples"])
        return file
