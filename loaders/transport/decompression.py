"""Decompression of a shard into no more memory than its index says, whatever its bytes contain."""

from __future__ import annotations

import bz2
import gzip
import io
import struct

import brotli
from streaming.base.compression import decompress

_ZSTD = 0xFD2FB528


def decompressed(compression: str, data: bytes, size: int) -> bytes:
    """Decompress data of a known size in bytes; `compression` is mosaicml-streaming's name: `zstd`, `zstd:7`, ...

    Raises:
        ValueError: the data are damaged or have another size; the message says which.
    """
    family = compression.partition(":")[0]
    try:
        if family in ("gz", "bz2"):
            opened = gzip.GzipFile(fileobj=io.BytesIO(data)) if family == "gz" else bz2.BZ2File(io.BytesIO(data))
            with opened:
                raw = opened.read(size + 1)
        elif family == "br":
            raw = _brotli(data, size)
        else:  # these libraries first allocate the size that the data claim
            claimed = _zstd_size(data) if family == "zstd" else _snappy_size(data)
            if claimed != size:
                raise ValueError(f"{claimed} bytes instead of {size}")
            raw = decompress(compression, data)
    except ValueError:
        raise
    except Exception as error:  # each library has its own kind
        raise ValueError(f"it cannot be decompressed ({type(error).__name__}: {error})") from error
    if len(raw) != size:
        raise ValueError(f"{'more' if len(raw) > size else len(raw)} bytes instead of {size}")
    return raw


def _brotli(data: bytes, size: int) -> bytes:
    """Decompress at least `size` bytes if the data have as many, and not many more."""
    decoder = brotli.Decompressor()
    raw = decoder.process(data, output_buffer_limit=size + 1)
    while len(raw) <= size and (more := decoder.process(b"", output_buffer_limit=size + 1 - len(raw))):
        raw += more
    return raw


def _snappy_size(data: bytes) -> int:
    """Return the size that precedes snappy's data, 7 bits per byte."""
    size = 0
    for position, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return size
    raise ValueError("it is not snappy data")


def _zstd_size(data: bytes) -> int:
    """Return the sum of the sizes in the headers of zstd's frames. Source: RFC 8878, section 3.1.1."""
    total = at = 0
    while at < len(data):
        magic, flags = struct.unpack_from("<IB", data, at)
        single, width = flags >> 5 & 1, flags >> 6
        if magic != _ZSTD or not (single or width):
            raise ValueError("it is not zstd data, or lacks its size")
        at += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        total += int.from_bytes(data[at : at + 2**width], "little") + (256 if width == 1 else 0)
        at += 2**width
        last = 0
        while not last:
            block = int.from_bytes(data[at : at + 3], "little")
            last = block & 1
            at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
            if at > len(data):
                raise ValueError("it ends early")
        at += 4 * (flags >> 2 & 1)
    return total
