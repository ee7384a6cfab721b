"""The columns of MDS shards: x, the image, y, its label, and seek, its seek table (`native.seek_table`).

No other column is decoded, above all no pickle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from streaming.base.format.mds.encodings import NDArray, get_mds_encoded_size, mds_decode

from loaders.class_names import MOST_CLASSES
from loaders.images.decoding import Source, Stored
from loaders.images.native import Encoded

D = TypeVar("D", bytes, memoryview)
FILES = ("jpeg", "png", "bytes")  # encodings of an image that are the bytes of its file
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_LABELS = ("int", *_INTEGERS, "str_int", "str")
_DIGITS = re.compile(r"\s*-?[0-9]{1,19}\s*")
_PIXELS = "uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
_WANTED = {
    "x": f"an image is {', '.join(FILES)}, pil, or an ndarray of {_PIXELS}",
    "y": f"a label is {', '.join(_LABELS)} (of digits), or an ndarray of one integer, at least 0",
}
_AGAIN = "Convert the data set again."


class WrongValue(ValueError):
    """A sample does not hold an image or a label; the message lacks only the sample's name."""


def column_fault(names: Sequence[str], encodings: Sequence[str], sizes: Sequence[int | None]) -> str | None:
    """Explain why these columns hold no image and label; None if they do.

    Encodings are named as in mosaicml-streaming; sizes are in bytes, None for a column of varying size.
    """
    kinds = dict(zip(names, zip(encodings, sizes, strict=True), strict=True))
    for name in ("x", "y"):
        encoding, size = kinds[name]
        if not (_is_image_file(encoding) if name == "x" else _is_label(encoding)):
            return f"column {name} is encoded as {encoding}; {_WANTED[name]}. {_AGAIN}"
        if get_mds_encoded_size(encoding) != size:
            return f"column {name}, encoded as {encoding}, cannot have {size} bytes. {_AGAIN}"
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
    """Parse an encoding of arrays, such as ndarray:uint8:224,224,3; None for others."""
    kind, _, rest = encoding.partition(":")
    try:
        return NDArray.from_str(rest) if kind == "ndarray" else None
    except (AssertionError, ValueError):
        return None


def _is_image(shape: Sequence[int]) -> bool:
    return min(shape) > 0 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))


class Columns:
    """Reader for the samples of a shard, given its entry in index.json."""

    def __init__(self, entry: dict[str, Any]) -> None:
        names, sizes = entry["column_names"], entry["column_sizes"]
        self._columns: list[tuple[str, int | None]] = list(zip(names, sizes, strict=True))
        self._varying = sizes.count(None)
        self._encodings: dict[str, str] = dict(zip(names, entry["column_encodings"], strict=True))
        self._has_tables = self._encodings.get("seek") == "bytes"

    def read(self, data: bytes) -> tuple[Source, int]:
        """Return the image (an encoded file, a PIL image, or pixels uint8 [H, W, 3]) and the label of a sample.

        Raises:
            WrongValue: the columns hold something else.
            ValueError: the sample does not have these columns.
        """
        values = self._cut(data)
        encoding, image = self._encodings["x"], values["x"]
        if encoding == "pil":
            _check_size(image)
        decoded: Any = image if encoding in FILES else mds_decode(encoding, image)
        source = _pixels(decoded) if isinstance(decoded, np.ndarray) else decoded
        return source, _label(mds_decode(self._encodings["y"], values["y"]))

    def borrow(self, data: memoryview) -> tuple[Stored, int]:
        """Return the same, an encoded file as a part of `data` with its seek table; raises as `read`."""
        if self._encodings["x"] not in FILES:
            return self.read(bytes(data))
        values = self._cut(data)
        table = np.frombuffer(values["seek"], np.uint8) if self._has_tables else b""
        label = _label(mds_decode(self._encodings["y"], bytes(values["y"])))
        return Encoded(np.frombuffer(values["x"], np.uint8), table), label

    def table(self, data: bytes) -> bytes | None:
        """Return a sample's seek table, which may be empty; None if there is no such column."""
        return self._cut(data)["seek"] if self._has_tables else None

    def number(self, data: bytes) -> int | None:
        """Return a sample's number from column i; None if that is not an integer."""
        return int(mds_decode("int", self._cut(data)["i"])) if self._encodings.get("i") == "int" else None

    def _cut(self, data: D) -> dict[str, D]:
        """Split a sample into columns; the sizes of those that vary precede the columns."""
        sizes, at = iter(np.frombuffer(data, np.uint32, self._varying).tolist()), 4 * self._varying
        values: dict[str, D] = {}
        for name, fixed in self._columns:
            size = next(sizes) if fixed is None else fixed
            values[name] = data[at : at + size]
            at += size
        if at != len(data):
            raise ValueError(f"its columns take {at} bytes, but it has {len(data)}")
        return values


def _check_size(data: bytes) -> None:
    """Check a stored PIL image before PIL allocates memory for a size that its bytes cannot hold."""
    width, height = np.frombuffer(data, np.uint32, 2).tolist()
    if width * height > 8 * len(data):  # a pixel takes at least one bit
        given = f"{width} x {height} px in {len(data)} bytes"
        raise WrongValue(f"its image (column x) is {given}, which is not all of it. {_AGAIN}")


def _pixels(array: np.ndarray) -> np.ndarray:
    """Convert an array to uint8 [H, W, 3] as PIL converts to RGB: gray is repeated, alpha dropped."""
    if array.dtype != np.uint8 or not array.size or not _is_image(array.shape):
        given = f"an array of {array.dtype} {list(array.shape)}"
        raise WrongValue(f"its image (column x) is {given}; pixels are {_PIXELS}. {_AGAIN}")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[..., :3].copy()  # writable, as torch needs it


def _label(value: Any) -> int:
    """Convert a label from any integer encoding."""
    number, given = None, f"{value!r:.60}"
    if isinstance(value, np.ndarray):
        given = f"an array of {value.dtype} {list(value.shape)}"
        number = value.item() if value.size == 1 and value.dtype.kind in "iu" else None
    elif isinstance(value, int | np.integer) or (isinstance(value, str) and _DIGITS.fullmatch(value)):
        number = int(value)
        given = str(number)
    if number is None or not 0 <= number < MOST_CLASSES:
        raise WrongValue(
            f"its label (column y) is {given}; a label is an integer from 0 to {MOST_CLASSES - 1:,}. Number the "
            "classes from 0, and convert the data set again."
        )
    return number
