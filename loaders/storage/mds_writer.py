"""One MDS shard as bytes in memory: laid out from encoded images, packed, unpacked and read.

The layout is mosaicml-streaming's, byte for byte. Its own writer takes decoded images and encodes what is no JPEG
anew; here the column x keeps whatever bytes it is given.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from streaming.base.compression import compress, get_compression_extension
from streaming.base.hashing import get_hash

from loaders.images.decoding import Source
from loaders.storage.columns import Columns
from loaders.transport.decompression import decompressed

Sample = tuple[int, bytes, int]
"""An image's number, its encoded bytes and its label: the columns i, x and y."""

SAMPLE_OVERHEAD = 4 + 4 + 8 + 8  # bytes beside the image's own: its offset, its length, i and y


@dataclass(frozen=True)
class ShardFormat:
    """What all shards of a data set have in common, as the index records it.

    Args:
        compression: of the whole file, as mosaicml-streaming names it (`zstd`, `zstd:7`, ...), or None.
        hash_name: which hash of each file is recorded.
        size_limit: bytes per shard that the data set was cut for.
    """

    compression: str | None
    hash_name: str
    size_limit: int

    def config(self) -> dict[str, Any]:
        """The part that stands in every shard's header and in its entry of the index."""
        return {
            "version": 2,
            "format": "mds",
            "compression": self.compression,
            "hashes": [self.hash_name],
            "size_limit": self.size_limit,
            "column_names": ["i", "x", "y"],
            "column_encodings": ["int", "jpeg", "int"],
            "column_sizes": [8, None, 8],
        }

    def pack(self, samples: Sequence[Sample], number: int) -> tuple[dict[str, Any], bytes]:
        """Lay out a shard.

        Args:
            samples: at least one.
            number: the shard's place in the split.

        Returns:
            Its entry of the index, and the bytes of the file that the entry names.
        """
        name = f"shard.{number:05}.mds"
        stored = raw = _lay_out(samples, json.dumps(self.config(), sort_keys=True).encode())
        entry = {**self.config(), "samples": len(samples), "raw_data": self._file(name, raw), "zip_data": None}
        if self.compression:
            stored = compress(self.compression, raw)
            entry["zip_data"] = self._file(f"{name}.{get_compression_extension(self.compression)}", stored)
        return entry, stored

    def _file(self, name: str, data: bytes) -> dict[str, Any]:
        return {"basename": name, "bytes": len(data), "hashes": {self.hash_name: get_hash(self.hash_name, data)}}


def _lay_out(samples: Sequence[Sample], config: bytes) -> bytes:
    """Number of samples, where each begins and the last ends, the configuration, the samples."""
    data = [struct.pack("<Iq", len(x), i) + x + struct.pack("<q", y) for i, x, y in samples]
    offsets = np.cumsum([8 + 4 * len(data) + len(config), *map(len, data)]).astype("<u4")
    return b"".join([struct.pack("<I", len(data)), offsets.tobytes(), config, *data])


def stored_file(entry: dict[str, Any]) -> dict[str, Any]:
    """Name, bytes and hashes of the file that holds a shard, compressed or not."""
    return entry["zip_data"] or entry["raw_data"]


def unpack(entry: dict[str, Any], stored: bytes) -> bytes:
    """A shard as it was laid out.

    Args:
        entry: its entry of the index.
        stored: the bytes of the file that the entry names.

    Raises:
        ValueError: they are not the bytes that the entry describes.
    """
    _check(stored_file(entry), stored)
    if not entry["zip_data"]:
        return stored
    raw = decompressed(entry["compression"], stored, entry["raw_data"]["bytes"])
    _check(entry["raw_data"], raw)
    return raw


def _check(file: dict[str, Any], data: bytes) -> None:
    """Compare length and every recorded hash."""
    if len(data) != file["bytes"]:
        raise ValueError(f"{len(data)} bytes instead of {file['bytes']}")
    for name, recorded in file["hashes"].items():
        if get_hash(name, data) != recorded:
            raise ValueError(f"its {name} is not the recorded one")


def count_samples(raw: bytes) -> int:
    """How many samples a shard says that it holds."""
    return int(struct.unpack_from("<I", raw)[0])


def read_sample(entry: dict[str, Any], raw: bytes, place: int) -> tuple[int, Source, int]:
    """Number, image and label of a sample of this program's or another's; its place stands in for another number.

    Args:
        entry: the shard's entry of the index.
        raw: the shard as it was laid out.
        place: which sample of the shard.

    Raises:
        WrongValue: it holds no image, or no label.
        ValueError: the shard is damaged.
    """
    begin, end = struct.unpack_from("<II", raw, 4 + 4 * place)
    columns = Columns(entry["column_names"], entry["column_encodings"], entry["column_sizes"])
    number = columns.number(raw[begin:end])
    return place if number is None else number, *columns.read(raw[begin:end])
