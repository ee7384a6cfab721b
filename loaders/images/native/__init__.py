"""The fast JPEG decoder: decode.c beside this file, which `make env` builds where libjpeg-turbo's headers are.

It decodes the box that is wanted and no more, and resizes it while it is in the processor's cache; the pixels are PIL's
to the bit. Nothing is built when this is imported: without the library, `available` says so, and others decode.
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
_INTERFACE = 3  # of decode.c
_WARNING = 200  # bytes: libjpeg's JMSG_LENGTH_MAX


class View(NamedTuple):
    """What is wanted of an image: a box in its pixels, resized to rows x columns; of that a part, mirrored or not.

    `scaled` lets the native decoder make an image of 800 px or more smaller while it decodes it, where the box is at
    least twice the result on both sides: less work, and pixels that are not PIL's (some 40 dB from them).
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


def whole(height: int, width: int, rows: int, columns: int) -> View:
    """All of an image of this height and width, resized."""
    return View(0, 0, height, width, rows, columns, 0, 0, rows, columns)


class _View(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in View._fields]


Job = tuple[bytes | np.ndarray, View]
"""A JPEG or pixels, uint8 [H, W, 3], and what is wanted of it."""

# The same in C, a `struct job`.
_JOB = np.dtype(
    [
        *(("data", np.uintp), ("size", np.uintp), ("shape", np.int32, 2)),
        *(("view", np.int32, len(View._fields)), ("done", np.int32), ("out", np.uintp)),
    ],
    align=True,
)


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
    library.jpeg_warning.argtypes = [data, size, ctypes.c_char * _WARNING]
    library.view_batch.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    return library


def available() -> bool:
    """Whether the library has been built, and works on this machine."""
    return _library() is not None


def jpeg_shape(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG in pixels; None for what `view_jpeg` does not decode."""
    shape = (ctypes.c_int32 * 2)()
    return (shape[0], shape[1]) if _built().jpeg_shape(data, len(data), shape) else None


def shape_of(source: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width in pixels of a JPEG, None for one that is not decoded here, or of pixels [H, W, 3]."""
    return jpeg_shape(source) if isinstance(source, bytes) else _checked(source).shape[:2]


def view_jpeg(data: bytes, view: View) -> np.ndarray | None:
    """A view of a JPEG, uint8 [kept_rows, kept_columns, 3]; None for CMYK, damage, and whatever else is unusual."""
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    return out if _built().view_jpeg(data, len(data), _View(*view), out.ctypes.data) else None


def jpeg_warning(data: bytes) -> str | None:
    """What libjpeg-turbo first warns of when it decodes all of a JPEG of any kind, after which it makes pixels up.

    Returns:
        None if there is nothing, the empty text where it does not decode it.
    """
    warning = (ctypes.c_char * _WARNING)()
    return None if _built().jpeg_warning(data, len(data), warning) else warning.value.decode()


def view_pixels(pixels: np.ndarray, view: View) -> np.ndarray:
    """A view of pixels, uint8 [H, W, 3].

    Raises:
        ValueError: the view is none of such an image, or these are no such pixels.
    """
    pixels = _checked(pixels)
    out = np.empty((view.kept_rows, view.kept_columns, 3), np.uint8)
    if not _built().view_pixels(pixels.ctypes.data, *pixels.shape[:2], _View(*view), out.ctypes.data):
        raise ValueError(f"{view} is no view of {pixels.shape[0]} x {pixels.shape[1]} pixels")
    return out


def view_batch(jobs: Sequence[Job | None], out: np.ndarray, threads: int) -> np.ndarray:
    """Views of many images, written where they belong, in one call that does not hold the interpreter's lock.

    Args:
        jobs: one for each place; None passes over it.
        out: uint8 [B, kept_rows, kept_columns, 3], the same for all; filled in.
        threads: how many decode; what they write is the same for any number.

    Returns:
        bool [B]: which are done. The others' places hold anything: they are what `view_jpeg` says None to.

    Raises:
        ValueError: `out` is of another shape, or an array is not of such pixels.
    """
    wanted = {place: job for place, job in enumerate(jobs) if job}
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


def _checked(pixels: np.ndarray) -> np.ndarray:
    """Pixels row by row: C sees an address and two sides, and takes three bytes a pixel from there.

    Raises:
        ValueError: they are not uint8 [H, W, 3].
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or max(pixels.shape) >= 2**31:
        raise ValueError(f"pixels are uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)


def _address(array: np.ndarray) -> int:
    """Where its first byte lies; `array.ctypes.data`, in a third of the time."""
    return int(array.__array_interface__["data"][0])


def _built() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError(f"{LIBRARY.name} is not built; type: {HOW_TO_BUILD}")
    return library
