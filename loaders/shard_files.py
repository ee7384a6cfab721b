"""Samples straight out of MDS shard files: one system call each, instead of mosaicml-streaming's three and an open."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from streaming.base.format.mds.encodings import mds_decode
from streaming.base.format.mds.reader import MDSReader

from loaders.decoding import Source

MOST_OPEN = 256  # files per process: well below the 1,024 that a process may usually have open


class ShardFiles:
    """Reads the columns x and y of samples in uncompressed shard files, by shard and place in it.

    The files are read at offsets, so that forked workers may share them. (Not mapped into memory: a mapped file that is
    cut short under a running program ends it with a bus error, this gives a sentence.)

    Args:
        shards: their descriptions, from the index; the files themselves may be missing until they are read.
    """

    def __init__(self, shards: Sequence[MDSReader]) -> None:
        self._shards = shards
        self._open: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()

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
        descriptor, offsets = self._file(shard)
        begin, end = int(offsets[place]), int(offsets[place + 1])
        data = os.pread(descriptor, end - begin, begin)
        if len(data) != end - begin:
            raise ValueError(f"it ends at byte {begin + len(data)}, in the middle of a sample")
        values = self._columns(self._shards[shard], data)
        return values["x"], int(values["y"])

    def _file(self, shard: int) -> tuple[int, np.ndarray]:
        """A shard's open file and where its samples begin, uint32 [samples + 1]."""
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        count = self._shards[shard].samples
        descriptor = os.open(self.path_of(shard), os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(descriptor, 4 * (count + 2), 0)
        numbers = np.frombuffer(header[: len(header) // 4 * 4], np.uint32)
        if len(numbers) != count + 2 or numbers[0] != count:
            os.close(descriptor)
            raise ValueError(f"it does not begin like a shard of {count} samples")
        self._open[shard] = descriptor, numbers[1:]
        if len(self._open) > MOST_OPEN:
            os.close(self._open.popitem(last=False)[1][0])
        return descriptor, numbers[1:]

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

    def __del__(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)
