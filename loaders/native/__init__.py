"""The fast JPEG decoder: decode.c beside this file, which `make env` builds where libjpeg-turbo's headers are.

It decodes the box that is wanted and no more, and resizes it while it is in the processor's cache; the pixels are PIL's
to the bit. Nothing is built when this is imported: without the library, `available` says so, and others decode.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

LIBRARY = Path(__file__).with_name("decode.so")
HOW_TO_BUILD = "apt-get install libjpeg62-turbo-dev && make env"
_INTERFACE = 1  # of decode.c


class View(NamedTuple):
    """What is wanted of a picture: a box in its pixels, resized to rows x columns; of that a part, mirrored or not."""

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


class _View(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in View._fields]


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled decode.c; None where it was not built, was for another machine, or is of another version."""
    try:
        library = ctypes.CDLL(str(LIBRARY))  # calls through it release the interpreter's lock
        if library.interface_version() != _INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    data, size, view, out = ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(_View), ctypes.c_void_p
    library.jpeg_shape.argtypes = [data, size, ctypes.c_int32 * 2]
    library.view_jpeg.argtypes = [data, size, view, out]
    library.view_pixels.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, view, out]
    return library


def available() -> bool:
    """Whether the library has been built, and works on this machine."""
    return _library() is not None


def jpeg_shape(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG in pixels; None for what `view_jpeg` does not decode."""
    shape = (ctypes.c_int32 * 2)()
    return (shape[0], shape[1]) if _built().jpeg_shape(data, len(data), shape) else None


def view_jpeg(data: bytes, view: View) -> np.ndarray | None:
    """A view of a JPEG, uint8 [kept_rows, kept_columns, 3]; None for CMYK, damage, and whatever else is unusual."""
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    return out if _built().view_jpeg(data, len(data), _View(*view), out.ctypes.data) else None


def view_pixels(pixels: np.ndarray, view: View) -> np.ndarray:
    """The same of pixels, uint8 [H, W, 3].

    Raises:
        ValueError: the view is none of such a picture.
    """
    pixels = np.ascontiguousarray(pixels)
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    if not _built().view_pixels(pixels.ctypes.data, *pixels.shape[:2], _View(*view), out.ctypes.data):
        raise ValueError(f"{view} is no view of {pixels.shape[0]} x {pixels.shape[1]} pixels")
    return out


def _built() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError(f"{LIBRARY.name} is not built; type: {HOW_TO_BUILD}")
    return library
