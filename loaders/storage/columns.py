"""The columns of MDS shards that are read: x, the image, and y, its label. No other is decoded, a pickle least."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from streaming.base.format.mds.encodings import NDArray, get_mds_encoded_size, mds_decode

from loaders.images.decoding import Source

FILES = ("jpeg", "png", "bytes")  # encodings of an image that are the plain bytes of its file
MOST_CLASSES = 10_000_000  # labels are counted in a list: one that is damaged must not take all memory
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_LABELS = ("int", *_INTEGERS, "str_int", "str")
_DIGITS = re.compile(r"\s*-?[0-9]{1,19}\s*")
_PIXELS = "uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
_WANTED = {
    "x": f"an image is {', '.join(FILES)}, pil, or an ndarray of {_PIXELS}",
    "y": f"a label is {', '.join(_LABELS)} (of digits), or an ndarray of one integer, from 0 on",
}
_AGAIN = "Convert the data set again."


class WrongValue(ValueError):
    """What a sample holds is not an image, or not a label; the message is a sentence but for the sample's name."""


def column_fault(names: Sequence[str], encodings: Sequence[str], sizes: Sequence[int | None]) -> str | None:
    """Why no image and label can be read from columns such as these; None where they can.

    Args:
        names: of the columns.
        encodings: mosaicml-streaming's, one for each.
        sizes: in bytes, None for a column whose values differ in size.
    """
    kinds = dict(zip(names, zip(encodings, sizes, strict=True), strict=True))
    for name in ("x", "y"):
        encoding, size = kinds[name]
        if not (_is_image_file(encoding) if name == "x" else _is_label(encoding)):
            return f"column {name} is encoded as {encoding}; {_WANTED[name]}. {_AGAIN}"
        if get_mds_encoded_size(encoding) != size:
            return f"column {name}, encoded as {encoding}, cannot be of {size} bytes. {_AGAIN}"
    return None


def _is_image_file(encoding: str) -> bool:
    array = _array(encoding)
    if array is None:
        return encoding in (*FILES, "pil")
    return array.dtype in (None, "uint8") and (array.shape is None or _is_image(array.shape))


def _is_label(encoding: str) -> bool:
    array = _array(encoding)
    if array is None:
        return encoding in _LABELS
    return array.dtype in (None, *_INTEGERS) and (array.shape is None or set(array.shape) == {1})


def _array(encoding: str) -> NDArray | None:
    """An encoding of arrays, as in ndarray:uint8:224,224,3; None for others."""
    kind, _, rest = encoding.partition(":")
    try:
        return NDArray.from_str(rest) if kind == "ndarray" else None
    except (AssertionError, ValueError):
        return None


def _is_image(shape: Sequence[int]) -> bool:
    return min(shape) > 0 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))


class Columns:
    """Reads samples of a shard.

    Args:
        names: of the columns, as the index gives them.
        encodings: one for each.
        sizes: in bytes, None for a column whose values differ in size.
    """

    def __init__(self, names: Sequence[str], encodings: Sequence[str], sizes: Sequence[int | None]) -> None:
        self._columns = list(zip(names, sizes, strict=True))
        self._varying = sum(size is None for size in sizes)
        self._encodings = dict(zip(names, encodings, strict=True))

    def read(self, data: bytes) -> tuple[Source, int]:
        """The image and the label of a sample: the bytes of a file, a PIL image, or pixels uint8 [H, W, 3].

        Raises:
            WrongValue: they are something else.
            ValueError: it is no sample of these columns.
        """
        values = self._cut(data)
        encoding, image = self._encodings["x"], values["x"]
        if encoding in FILES:
            return image, _label(mds_decode(self._encodings["y"], values["y"]))
        if encoding == "pil":
            _check_size(image)
        decoded = mds_decode(encoding, image)
        source = _pixels(decoded) if isinstance(decoded, np.ndarray) else decoded
        return source, _label(mds_decode(self._encodings["y"], values["y"]))

    def number(self, data: bytes) -> int | None:
        """The column i of a sample, where that is its number; others keep a name or nothing there."""
        return int(mds_decode("int", self._cut(data)["i"])) if self._encodings.get("i") == "int" else None

    def _cut(self, data: bytes) -> dict[str, bytes]:
        """Each column's bytes: the sizes of those that vary come first, then the columns themselves."""
        sizes, at = iter(np.frombuffer(data, np.uint32, self._varying).tolist()), 4 * self._varying
        values = {}
        for name, fixed in self._columns:
            size = next(sizes) if fixed is None else fixed
            values[name] = data[at : at + size]
            at += size
        if at != len(data):
            raise ValueError(f"its columns take {at} bytes, and it has {len(data)}")
        return values


def _check_size(data: bytes) -> None:
    """Refuse stored pixels of a size that they are too few for, which PIL would first make room for."""
    width, height = np.frombuffer(data, np.uint32, 2).tolist()
    if width * height > 8 * len(data):  # a pixel takes a bit or more
        found = f"{width} x {height} px in {len(data)} bytes"
        raise WrongValue(f"its image (column x) is {found}, which is not all of it. {_AGAIN}")


def _pixels(array: np.ndarray) -> np.ndarray:
    """An array as uint8 [H, W, 3]: gray repeated, alpha dropped, as PIL converts to RGB."""
    if array.dtype != np.uint8 or not array.size or not _is_image(array.shape):
        found = f"an array of {array.dtype} {list(array.shape)}"
        raise WrongValue(f"its image (column x) is {found}; pixels are {_PIXELS}. {_AGAIN}")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[..., :3].copy()  # it can be written to, as torch wants it


def _label(value: Any) -> int:
    """A label from whatever integer it is stored as."""
    number, found = None, f"{value!r:.60}"
    if isinstance(value, np.ndarray):
        found = f"an array of {value.dtype} {list(value.shape)}"
        number = value.item() if value.size == 1 and value.dtype.kind in "iu" else None
    elif isinstance(value, int | np.integer) or (isinstance(value, str) and _DIGITS.fullmatch(value)):
        number = int(value)
        found = str(number)
    if number is None or not 0 <= number < MOST_CLASSES:
        raise WrongValue(
            f"its label (column y) is {found}; a label is a whole number from 0 to {MOST_CLASSES - 1:,}. Number the "
            "classes from 0 on, and convert the data set again."
        )
    return number
