"""Fast JPEG decoder: decode.c in this folder, built by `make env` if libjpeg-turbo's headers are installed.

It decodes only the crop's box, and resizes it while it is in the processor's cache; the pixels are bit for bit PIL's.
Importing this builds nothing; if `available` is false, other decoders are used.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

LIBRARY = Path(__file__).with_name("decode.so")
HOW_TO_BUILD = "apt-get install libjpeg62-turbo-dev && make env"
_INTERFACE = 5  # as in decode.c
_WARNING = 200  # bytes: libjpeg's JMSG_LENGTH_MAX


class View(NamedTuple):
    """A box of an image, resized to rows x columns, of which the kept part is returned, mirrored if `flip`.

    `scaled` lets the native decoder decode an image of 800 px or more at a fraction of its size if the box is at least
    twice the result on both sides: less work, but pixels about 40 dB from PIL's. `libjpeg` selects libjpeg-turbo's
    Huffman decoder, which is slower than ours and gives the same pixels.
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


def whole(height: int, width: int, rows: int, columns: int) -> View:
    """View of a whole image of this height and width, resized."""
    return View(0, 0, height, width, rows, columns, 0, 0, rows, columns)


class _View(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in View._fields]


Job = tuple[bytes | np.ndarray, View]
"""A JPEG or pixels, uint8 [H, W, 3], and the view of it to make."""

# `struct job` of decode.c.
_JOB = np.dtype(
    [
        *(("data", np.uintp), ("size", np.uintp), ("shape", np.int32, 2)),
        *(("view", np.int32, len(View._fields)), ("done", np.int32), ("out", np.uintp)),
    ],
    align=True,
)


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
    library.view_jpeg.argtypes = [data, size, view, out]
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


def shape_of(source: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width of pixels [H, W, 3], or of a JPEG; None for one that `view_jpeg` does not decode."""
    return jpeg_shape(source) if isinstance(source, bytes) else _checked(source).shape[:2]


def view_jpeg(data: bytes, view: View) -> np.ndarray | None:
    """View of a JPEG, uint8 [kept_rows, kept_columns, 3]; None for CMYK, damage and other unusual ones."""
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    return out if _built().view_jpeg(data, len(data), _View(*view), out.ctypes.data) else None


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


def view_batch(jobs: Sequence[Job | None], out: np.ndarray, threads: int) -> np.ndarray:
    """Write the views of many images into a batch, in one call without the GIL.

    Args:
        jobs: one per image of the batch; None skips it.
        out: uint8 [B, kept_rows, kept_columns, 3], filled in.
        threads: decoding threads; the result does not depend on them.

    Returns:
        bool [B]: which images are done. The others, for which `view_jpeg` returns None, hold undefined pixels.

    Raises:
        ValueError: `out` has another shape, or an array is not pixels.
    """
    wanted = {index: job for index, job in enumerate(jobs) if job}
    shapes = {(len(jobs), view.kept_rows, view.kept_columns, 3) for _, view in wanted.values()}
    if shapes - {out.shape} or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"views {shapes} do not fit {out.dtype} {out.shape}")
    done = np.zeros(len(jobs), bool)
    if wanted:
        kept = [np.frombuffer(s, np.uint8) if isinstance(s, bytes) else _checked(s) for s, _ in wanted.values()]
        table = np.zeros(len(wanted), _JOB)
        table["data"] = [_address(array) for array in kept]
        table["size"] = [array.size if array.ndim == 1 else 0 for array in kept]
        table["shape"] = [array.shape[:2] if array.ndim == 3 else (0, 0) for array in kept]
        table["view"] = [view for _, view in wanted.values()]
        table["out"] = _address(out) + np.fromiter(wanted, np.uintp) * out[0].size
        _built().view_batch(_address(table), len(table), threads - 1)
        done[list(wanted)] = table["done"]
    return done


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
