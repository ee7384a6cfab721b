"""Pack, unpack and read an MDS shard in memory.

The layout is mosaicml-streaming's, byte for byte. Its writer takes decoded images and re-encodes those that are not
JPEGs; this one keeps the encoded bytes in column x.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from streaming.base.compression import compress, get_compression_extension
from streaming.base.hashing import get_hash

from loaders.images import native
from loaders.images.decoding import Source
from loaders.storage.columns import Columns
from loaders.transport.decompression import decompressed

Sample = tuple[int, bytes, int]
"""The columns i, x and y: an image's number, its encoded bytes and its label."""

SAMPLE_OVERHEAD = 4 + 4 + 8 + 8  # bytes per sample in addition to x and seek: offset, length, i and y


@dataclass(frozen=True)
class ShardFormat:
    """Properties shared by all shards of a data set, as recorded in the index."""

    compression: str | None  # of the whole file, as mosaicml-streaming names it: `zstd`, `zstd:7`, ...
    hash_name: str  # recorded of each file
    size_limit: int  # bytes per shard, approximately
    seekable: int | None = None  # as `every` of `native.seek_table`, for the column seek; None: without it

    def config(self) -> dict[str, Any]:
        """Return what every shard's header and index entry contain; columns are sorted by name, as in MDSWriter."""
        columns = {"i": ("int", 8), "seek": ("bytes", None), "x": ("jpeg", None), "y": ("int", 8)}
        if self.seekable is None:
            del columns["seek"]
        return {
            "version": 2,
            "format": "mds",
            "compression": self.compression,
            "hashes": [self.hash_name],
            "size_limit": self.size_limit,
            "column_names": list(columns),
            "column_encodings": [encoding for encoding, _ in columns.values()],
            "column_sizes": [size for _, size in columns.values()],
        }

    def pack(self, samples: Sequence[Sample], number: int) -> tuple[dict[str, Any], bytes]:
        """Make a shard of a split; return its index entry and the bytes of the file that the entry names."""
        name = f"shard.{number:05}.mds"
        stored = raw = _lay_out(list(map(self._row, samples)), json.dumps(self.config(), sort_keys=True).encode())
        entry = {**self.config(), "samples": len(samples), "raw_data": self._file(name, raw), "zip_data": None}
        if self.compression:
            stored = compress(self.compression, raw)
            entry["zip_data"] = self._file(f"{name}.{get_compression_extension(self.compression)}", stored)
        return entry, stored

    def table(self, image: bytes) -> bytes:
        """Return the contents of column seek: empty without it, and for an image that cannot have a table."""
        return b"" if self.seekable is None else native.seek_table(image, self.seekable) or b""

    def _row(self, sample: Sample) -> bytes:
        i, x, y = sample
        varying = [x] if self.seekable is None else [self.table(x), x]
        sizes = np.array(list(map(len, varying)), "<u4").tobytes()
        return b"".join([sizes, struct.pack("<q", i), *varying, struct.pack("<q", y)])

    def _file(self, name: str, data: bytes) -> dict[str, Any]:
        return {"basename": name, "bytes": len(data), "hashes": {self.hash_name: get_hash(self.hash_name, data)}}


def _lay_out(rows: Sequence[bytes], config: bytes) -> bytes:
    """Concatenate the number of samples, their offsets and the end, the configuration, and the samples."""
    offsets = np.cumsum([8 + 4 * len(rows) + len(config), *map(len, rows)]).astype("<u4")
    return b"".join([struct.pack("<I", len(rows)), offsets.tobytes(), config, *rows])


def stored_file(entry: dict[str, Any]) -> dict[str, Any]:
    """Name, bytes and hashes of a shard's file, compressed or not, from its index entry."""
    return entry["zip_data"] or entry["raw_data"]


def unpack(entry: dict[str, Any], stored: bytes) -> bytes:
    """Decompress the file that a shard's index entry names; raises a ValueError if its bytes do not match the entry."""
    _check(stored_file(entry), stored)
    if not entry["zip_data"]:
        return stored
    raw = decompressed(entry["compression"], stored, entry["raw_data"]["bytes"])
    _check(entry["raw_data"], raw)
    return raw


def _check(file: dict[str, Any], data: bytes) -> None:
    """Compare the length and all recorded hashes."""
    if len(data) != file["bytes"]:
        raise ValueError(f"{len(data)} bytes instead of {file['bytes']}")
    for name, recorded in file["hashes"].items():
        if get_hash(name, data) != recorded:
            raise ValueError(f"its {name} is not the recorded one")


def count_samples(raw: bytes) -> int:
    """Number of samples according to a shard's header."""
    return int(struct.unpack_from("<I", raw)[0])


def read_sample(entry: dict[str, Any], raw: bytes, index: int) -> tuple[int, Source, int]:
    """Return number (`index` if it has none), image and label of a sample of an uncompressed shard.

    Raises a ValueError if the shard is damaged, a WrongValue if the sample holds no image or no label.
    """
    columns, sample = Columns(entry), _sample(raw, index)
    number = columns.number(sample)
    return index if number is None else number, *columns.read(sample)


def read_table(entry: dict[str, Any], raw: bytes, index: int) -> bytes | None:
    """Return the seek table of a sample of an uncompressed shard; None if the shard has no such column."""
    return Columns(entry).table(_sample(raw, index))


def _sample(raw: bytes, index: int) -> bytes:
    begin, end = struct.unpack_from("<II", raw, 4 + 4 * index)
    return raw[begin:end]
