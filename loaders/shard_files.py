"""Samples straight out of MDS shard files: one system call each, instead of mosaicml-streaming's three and an open."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from streaming.base.format.mds.encodings import mds_decode
from streaming.base.format.mds.reader import MDSReader

from loaders.decoding import Source

MOST_OPEN = 256  # files per process: well below the 1,024 that a process may usually have open


class _File:
    """An open shard and where its samples begin; closed when nobody reads it any more, not sooner.

    Args:
        path: the shard.
        samples: how many it should hold.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no such shard.
    """

    def __init__(self, path: Path, samples: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(self.descriptor, 4 * (samples + 2), 0)
        numbers = np.frombuffer(header[: len(header) // 4 * 4], np.uint32)
        if len(numbers) != samples + 2 or numbers[0] != samples:
            raise ValueError(f"it does not begin like a shard of {samples} samples")
        self.offsets = numbers[1:]

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardFiles:
    """Reads the columns x and y of samples in uncompressed shard files, by shard and place in it.

    The files are read at offsets, so that forked workers and threads may share them. (Not mapped into memory: a mapped
    file that is cut short under a running program ends it with a bus error, this gives a sentence.)

    Args:
        shards: their descriptions, from the index; the files themselves may be missing until they are read.
    """

    def __init__(self, shards: Sequence[MDSReader]) -> None:
        self._shards = shards
        self._open: dict[int, _File] = {}

    def path_of(self, shard: int) -> Path:
        """The file of a shard."""
        reader = self._shards[shard]
        return Path(reader.dirname, reader.split, reader.raw_data.basename)

    def read(self, shard: int, place: int) -> tuple[Source, int]:
        """The encoded picture and the label of one sample.

        Raises:
            FileNotFoundError: the shard is not in the cache (yet).
            ValueError: the file ends too early, or is no shard.
        """
        file = self._file(shard)
        begin, end = int(file.offsets[place]), int(file.offsets[place + 1])
        data = os.pread(file.descriptor, end - begin, begin)
        if len(data) != end - begin:
            raise ValueError(f"it ends at byte {begin + len(data)}, in the middle of a sample")
        values = self._columns(self._shards[shard], data)
        return values["x"], int(values["y"])

    def _file(self, shard: int) -> _File:
        """A shard's open file. Two threads may open it twice; the one that is forgotten closes with its reader."""
        file = self._open.get(shard)
        if file is None:
            file = self._open[shard] = _File(self.path_of(shard), self._shards[shard].samples)
            while len(self._open) > MOST_OPEN:
                with contextlib.suppress(RuntimeError, StopIteration):  # another thread is at it as well
                    self._open.pop(next(iter(self._open)), None)
        return file

    @staticmethod
    def _columns(shard: MDSReader, data: bytes) -> dict[str, Any]:
        """The columns x and y of a sample: the sizes of those that vary come first, then the columns themselves."""
        varying = sum(size is None for size in shard.column_sizes)
        sizes, at = iter(np.frombuffer(data, np.uint32, varying).tolist()), 4 * varying
        values: dict[str, Any] = {}
        for name, encoding, fixed in zip(shard.column_names, shard.column_encodings, shard.column_sizes, strict=True):
            size = next(sizes) if fixed is None else fixed
            if name in ("x", "y"):  # the shard store has turned jpeg and png into bytes
                values[name] = mds_decode(encoding, data[at : at + size])
            at += size
        return values
