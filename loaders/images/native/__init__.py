"""Fast JPEG decoder: decode.c in this folder, built by `make env` if libjpeg-turbo's headers are installed.

It decodes only the crop's box, and resizes it while it is in the cache; the pixels are bit for bit PIL's, or with the
area filter OpenCV's. Importing this builds nothing; if `available` is false, other decoders are used.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LIBRARY = Path(__file__).with_name("decode.so")
HOW_TO_BUILD = "apt-get install libjpeg62-turbo-dev && make env"
MOST_EVERY = 65535  # columns of MCUs between a seek table's entries: a 16-bit number in it
_INTERFACE = 6  # as in decode.c
_WARNING = 200  # bytes: libjpeg's JMSG_LENGTH_MAX


class View(NamedTuple):
    """A box of an image, resized to rows x columns, of which the kept part is returned, mirrored if `flip`.

    `scaled` lets the native decoder decode an image of 800 px or more at a fraction of its size if the box is at least
    twice the result on both sides: less work, but pixels about 40 dB from PIL's. `libjpeg` selects libjpeg-turbo's
    Huffman decoder, which is slower than ours and gives the same pixels. `filter` is an index of INTERPOLATIONS
    (loaders.images.decoders); area is never scaled.
    """

    top: int
    left: int
    height: int
    width: int
    rows: int
    columns: int
    top_row: int
    left_column: int
    kept_rows: int
    kept_columns: int
    flip: bool = False
    scaled: bool = False
    libjpeg: bool = False
    filter: int = 0


def whole(height: int, width: int, rows: int, columns: int, filter: int = 0) -> View:
    """View of a whole image of this height and width, resized."""
    return View(0, 0, height, width, rows, columns, 0, 0, rows, columns, filter=filter)


class _View(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in View._fields]


Memory = bytes | np.ndarray
"""Bytes, or uint8 [N] in other memory, such as that of a mapped file."""


class Encoded(NamedTuple):
    """An encoded image, and its seek table if it has one."""

    data: Memory
    table: Memory = b""


# `struct job` of decode.c.
_JOB = np.dtype(
    [
        *((name, np.uintp) for name in ("data", "size", "table", "table_size")),
        *(("shape", np.int32, 2), ("view", np.int32, len(View._fields)), ("done", np.int32), ("out", np.uintp)),
    ],
    align=True,
)


class _Image(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t), ("table", ctypes.c_char_p)]
    _fields_ += [("table_size", ctypes.c_size_t)]


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Load the compiled decode.c; None if it is not built, or was built for another machine or version."""
    try:
        library = ctypes.CDLL(str(LIBRARY))  # its calls release the GIL
        if library.interface_version() != _INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    data, size, view, out = ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(_View), ctypes.c_void_p
    library.huffman_decoder.restype = ctypes.c_char_p
    library.jpeg_shape.argtypes = [data, size, ctypes.c_int32 * 2]
    library.view_jpeg.argtypes = [ctypes.POINTER(_Image), view, out]
    library.seek_table.argtypes = [data, size, size, ctypes.c_void_p, size]
    library.seek_table.restype = size
    library.batch_shapes.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.view_pixels.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, view, out]
    library.jpeg_warning.argtypes = [data, size, ctypes.c_char * _WARNING]
    library.view_batch.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    library.random_words.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p]
    return library


def available() -> bool:
    """Whether the library is built and works on this machine."""
    return _library() is not None


def huffman_decoder() -> str | None:
    """Name of the Huffman decoder in use: `libjpeg-turbo` if ours failed its self-test; None if nothing is built."""
    library = _library()
    return library.huffman_decoder().decode() if library else None


def jpeg_shape(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG in pixels; None for one that `view_jpeg` does not decode."""
    shape = (ctypes.c_int32 * 2)()
    return (shape[0], shape[1]) if _built().jpeg_shape(data, len(data), shape) else None


def view_jpeg(data: bytes, view: View, table: bytes = b"") -> np.ndarray | None:
    """View of a JPEG, uint8 [kept_rows, kept_columns, 3]; None for CMYK, damage and other unusual ones.

    `table` is the JPEG's seek table; any other is ignored.
    """
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    image = _Image(data, len(data), table, len(table))
    return out if _built().view_jpeg(image, _View(*view), out.ctypes.data) else None


def seek_table(data: bytes, every: int = 0) -> bytes | None:
    """Seek table of a JPEG, with which decoding a box starts at the box; None for a JPEG that cannot have one.

    It has an entry at the start of each row of MCUs (blocks of 8 or 16 pixels), and if `every` (at most MOST_EVERY) is
    not 0, at every `every`-th MCU of the row. Progressive, CMYK and damaged JPEGs have none; also if our Huffman
    decoder is off.
    """
    room = _built().seek_table(data, len(data), every, None, 0)
    table = ctypes.create_string_buffer(room)
    return table.raw if room and _built().seek_table(data, len(data), every, table, room) else None


def no_seek_tables() -> str | None:
    """Explain why no seek tables can be made here; None if they can."""
    if not available():
        return f"seek tables need the native decoder, which is not built; type: {HOW_TO_BUILD}"
    if huffman_decoder() == "libjpeg-turbo":
        return "seek tables need our Huffman decoder, which failed its self-test on this machine."
    return None


def seek_table_fault(data: bytes, table: bytes) -> str | None:
    """Make an image's seek table again, and explain how it differs from `table`; None if it is the same.

    None as well if no tables can be made here.
    """
    if no_seek_tables():
        return None
    every = int.from_bytes(table[2:4], sys.byteorder)  # of seek_header
    made = seek_table(data, every) or b""
    if made == table:
        return None
    return "has no seek table." if not table else "its seek table is another image's, or damaged."


def jpeg_warning(data: bytes) -> str | None:
    """Decode all of a JPEG of any kind and return libjpeg-turbo's first warning, after which it makes up pixels.

    None if there is no warning; an empty string if it cannot decode the JPEG.
    """
    warning = (ctypes.c_char * _WARNING)()
    return None if _built().jpeg_warning(data, len(data), warning) else warning.value.decode()


def view_pixels(pixels: np.ndarray, view: View) -> np.ndarray:
    """View of pixels, uint8 [H, W, 3].

    Raises:
        ValueError: the view exceeds the image, or the array is not such pixels.
    """
    pixels = _checked(pixels)
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    if not _built().view_pixels(pixels.ctypes.data, *pixels.shape[:2], _View(*view), out.ctypes.data):
        raise ValueError(f"{view} is not a view of {pixels.shape[0]} x {pixels.shape[1]} pixels")
    return out


class Batch:
    """Images to decode with one call for all of them, without the GIL.

    Args:
        sources: encoded images, pixels uint8 [H, W, 3], or anything else, which is left out.

    Raises:
        ValueError: an array is not such pixels.
    """

    def __init__(self, sources: Sequence[object]) -> None:
        parts = [_parts(source) for source in sources]
        self._kept = parts  # what the addresses point to
        self._jobs = np.zeros(len(sources), _JOB)
        self._jobs["data"] = _addresses([data for data, *_ in parts])
        self._jobs["size"] = [size for _, size, _, _ in parts]
        self._jobs["table"] = _addresses([table for _, _, table, _ in parts])
        self._jobs["table_size"] = [len(table) for _, _, table, _ in parts]
        self._jobs["shape"] = [shape for *_, shape in parts] or 0
        _built().batch_shapes(_address(self._jobs), len(sources))

    @property
    def shapes(self) -> np.ndarray:
        """Heights and widths in pixels, int32 [B, 2]; 0 for images that `view` does not decode."""
        return self._jobs["shape"]

    def view(self, views: np.ndarray, out: np.ndarray, threads: int) -> np.ndarray:
        """Write views of the images.

        Args:
            views: int32 [B, fields of View]; rows of zeros are left out.
            out: uint8 [B, kept_rows, kept_columns, 3], filled in.
            threads: decoding threads; the result does not depend on them.

        Returns:
            bool [B]: which images are done. The others hold undefined pixels.

        Raises:
            ValueError: `out` has another shape.
        """
        at = View._fields.index("kept_rows")
        shapes = {(len(views), *kept, 3) for kept in views[views.any(axis=1)][:, at : at + 2].tolist()}
        if shapes - {out.shape} or len(views) != len(self._jobs) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"views {shapes} of {len(self._jobs)} images do not fit {out.dtype} {out.shape}")
        self._jobs["view"] = views
        self._jobs["out"] = _address(out) + np.arange(len(views), dtype=np.uintp) * (out.nbytes // max(1, len(out)))
        _built().view_batch(_address(self._jobs), len(self._jobs), threads - 1)
        return self._jobs["done"].astype(bool)


def _parts(source: object) -> tuple[Memory, int, Memory, tuple[int, ...]]:
    """Return an image's data, their bytes (0 for pixels), its seek table, and the shape of pixels, or zeros."""
    if isinstance(source, bytes):
        return source, len(source), b"", (0, 0)
    if isinstance(source, Encoded):
        return source.data, len(source.data), source.table, (0, 0)
    if isinstance(source, np.ndarray):
        pixels = _checked(source)
        return pixels, 0, b"", pixels.shape[:2]
    return b"", 0, b"", (0, 0)


def _addresses(memory: Sequence[Memory]) -> np.ndarray:
    """Address of the first byte of each, uintp [N]."""
    given: list[Any] = [part if isinstance(part, bytes) else _address(part) for part in memory]
    return np.frombuffer(bytes((ctypes.c_char_p * len(given))(*given)), np.uintp)


def random_words(seeds: Sequence[int], count: int) -> np.ndarray:
    """First `count` <= 32 outputs of torch's CPU generator for each seed of 0 to 2**64 - 1: uint32 [B, count]."""
    table = np.array(seeds, np.uint64)
    out = np.empty((len(table), count), np.uint32)
    if not _built().random_words(_address(table), len(table), count, _address(out)):
        raise ValueError(f"{count} random words of a seed are too many; at most 32")
    return out


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels stored row by row, as C reads them; raises a ValueError if they are not uint8 [H, W, 3]."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or max(pixels.shape) >= 2**31:
        raise ValueError(f"pixels are uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)


def _address(array: np.ndarray) -> int:
    """Address of the first byte: `array.ctypes.data` in a third of the time."""
    return int(array.__array_interface__["data"][0])


def _built() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError(f"{LIBRARY.name} is not built; type: {HOW_TO_BUILD}")
    return library
