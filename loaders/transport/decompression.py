"""Decompressing a shard into as much memory as its index says, however much its bytes would make."""

from __future__ import annotations

import bz2
import gzip
import io
import struct

import brotli
from streaming.base.compression import decompress

_ZSTD = 0xFD2FB528


def decompressed(compression: str, data: bytes, size: int) -> bytes:
    """What compressed bytes hold.

    Args:
        compression: as mosaicml-streaming names it: `zstd`, `zstd:7`, ...
        data: the compressed bytes.
        size: bytes that they should hold.

    Raises:
        ValueError: they hold more or fewer, or are damaged; the message says which.
    """
    family = compression.partition(":")[0]
    try:
        if family in ("gz", "bz2"):
            opened = gzip.GzipFile(fileobj=io.BytesIO(data)) if family == "gz" else bz2.BZ2File(io.BytesIO(data))
            with opened:
                raw = opened.read(size + 1)
        elif family == "br":
            raw = _brotli(data, size)
        else:  # these libraries make room for what the data says before they begin
            promised = _zstd_size(data) if family == "zstd" else _snappy_size(data)
            if promised != size:
                raise ValueError(f"{promised} bytes instead of {size}")
            raw = decompress(compression, data)
    except ValueError:
        raise
    except Exception as error:  # each library has its own
        raise ValueError(f"it cannot be decompressed ({type(error).__name__}: {error})") from error
    if len(raw) != size:
        raise ValueError(f"{'more' if len(raw) > size else len(raw)} bytes instead of {size}")
    return raw


def _brotli(data: bytes, size: int) -> bytes:
    """At least `size` bytes where there are so many, and not many more."""
    decoder, parts, room = brotli.Decompressor(), [], size + 1
    pending = data
    while room > 0 and not decoder.is_finished():
        part = decoder.process(pending, output_buffer_limit=room)
        if not part and not pending:
            break  # it ends early
        parts.append(part)
        pending, room = b"", room - len(part)
    return b"".join(parts)


def _snappy_size(data: bytes) -> int:
    """The length that stands before snappy's data, seven bits a byte."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return size
    raise ValueError("it is not of snappy")


def _zstd_size(data: bytes) -> int:
    """The lengths that zstd's frames say they have. Source: RFC 8878, section 3.1.1."""
    total = at = 0
    while at < len(data):
        magic, flags = struct.unpack_from("<IB", data, at)
        single, width = flags >> 5 & 1, flags >> 6
        if magic != _ZSTD or not (single or width):
            raise ValueError("it is not of zstd, or does not say how long it is")
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
