"""TFRecord files of tf.train.Example, parsed by hand: the ranges of their images, and their labels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError, named
from loaders.archives.catalog import DataCopy
from loaders.archives.forms import OptionNeeded, ReadOptions
from loaders.archives.labels import ADVICE, Images, classes_by_names, index_files, labeled
from loaders.archives.place import Place, ranges, read_range, stream
from loaders.archives.splits import by_split, split_of
from loaders.class_names import are_imagenet

IMAGES = ("image/encoded", "image", "image_raw", "jpg", "image_bytes")
LABELS = ("image/class/label", "label", "class", "cls")
NAMES = ("image/filename", "file_name", "filename", "fname")
_BACKGROUND = LABELS[0]  # whose 0 is "background" in the files that name it so
_NAME = re.compile(r".*tfrec.*|.*-\d{5}-of-\d{5}")
_HEADER = 12  # bytes: the length, and its checksum
_POLYNOMIAL = 0x82F63B78


def masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord has of some bytes: CRC-32C, rotated, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record_files(place: Place) -> list[str]:
    """Return the files that may be TFRecord's, by their names."""
    names = [name for name in place.names() if _NAME.fullmatch(name)]
    for folder in [] if names or place.only else [name for name in place.names() if split_of(name) and name[-1] == "/"]:
        names += [folder + name for name in place.names(folder[:-1]) if _NAME.fullmatch(name)]
    return [name for name in names if not name.endswith((".json", ".txt", ".index", ".idx", "/"))]


def is_tfrecord(place: Place) -> bool:
    """Whether a place holds such files, by the checksum of the first record's length; gzip may hide it."""
    starts = {name: ranges(place.address(name)).read(0, _HEADER) for name in record_files(place)[:1]}
    return any(_length(start) is not None or _is_packed(name, start) for name, start in starts.items())


def _is_packed(name: str, start: bytes) -> bool:
    return "tfrec" in name and start[:2] == b"\x1f\x8b"


def _length(header: bytes) -> int | None:
    """Return the length in a record's header; None if its checksum is not right."""
    if len(header) < _HEADER:
        return None
    length, crc = struct.unpack("<QI", header)
    return length if crc == masked_crc(header[:8]) else None


def open_tfrecord(place: Place, options: ReadOptions) -> DataCopy:
    """Open TFRecord files; `options.label` is the key of the feature that holds the label."""
    found, remarks = by_split(place, record_files(place))
    files = {split: [place.address(name) for name in names] for split, names in found.items()}
    keys = _keys(next(iter(files.values()))[0], options)
    read = {split: index_files(names, partial(_index, names, keys)) for split, names in files.items()}
    splits, classes = labeled(read, read_range, options, None)
    if classes is None and not options.label_offset:
        _check_from_zero(np.concatenate([catalog.labels for catalog in splits.values()]), place.given, keys)
    classes = classes or classes_by_names(splits.values())
    if keys.name and are_imagenet(classes):
        splits = {split: catalog.by_name() for split, catalog in splits.items()}
    return DataCopy("TFRecord files", splits, classes, remarks)


def _check_from_zero(labels: np.ndarray, given: str, keys: _Keys) -> None:
    """Raise a DataError if labels seem to count from 1."""
    present = np.unique(labels)
    if len(present) < 2 or present[0] < 1:
        return
    if keys.label == _BACKGROUND or np.array_equal(present, np.arange(1, len(present) + 1)):
        raise OptionNeeded(
            f"{given}: labels ({keys.label}) are from {present[0]} to "
            f"{present[-1]:,}, and none is 0, the background's in such files. Add --label-offset -1, or --label KEY "
            f"with a key of names: it has {named(keys.there, 20)}."
        )


class _Keys(NamedTuple):
    """Keys of the features that are read."""

    image: str
    label: str
    name: str | None
    there: list[str]  # all keys of the first record


def _keys(address: str, options: ReadOptions) -> _Keys:
    """Return the keys by those of a file's first record."""
    if _is_packed(address, ranges(address).read(0, _HEADER)):
        raise DataError(f"{without_credentials(address)}: is compressed; unpack it: gunzip (add .gz to its name first)")
    with stream(address) as file:
        _, there = next(_records(address, file), ("", {}))
    where = f"{without_credentials(address)}, record 0"
    image = next((key for key in IMAGES if key in there), None)
    if image is None:
        raise DataError(f"{where}: has no image ({named(list(IMAGES))}), but {named(sorted(there), 20)}.")
    label = options.label or next((key for key in LABELS if key in there), None)
    if label not in there:
        raise OptionNeeded(f"{where}: has no {label or 'label'}, but {named(sorted(there), 20)}. {ADVICE}")
    return _Keys(image, label, next((key for key in NAMES if key in there), None), sorted(there))


def _index(files: list[str], keys: _Keys, number: int) -> Images:
    """Index a file."""
    found, address = Images(files), files[number]
    with stream(address) as file:
        for where, features in _records(address, file):
            image, label = (_value(file, features, key, where) for key in (keys.image, keys.label))
            if not isinstance(image, Range):
                raise DataError(f"{where}: {keys.image} is not bytes.")
            name = _value(file, features, keys.name, where) if keys.name in features else None
            text = _text(file, name, where, "surrogateescape") if isinstance(name, Range) else ""
            value = _text(file, label, where) if isinstance(label, Range) else str(label)
            found.add(number, text or where.rpartition(", ")[2], image.start, image.end - image.start, value)
    return found


class Range(NamedTuple):
    """Bytes of a file."""

    start: int
    end: int


def _records(address: str, file: BinaryIO) -> Iterator[tuple[str, dict[str, Range]]]:
    """Yield each record of a file: where it is, and its features by their keys; file positions may change between."""
    at, number, size = 0, 0, ranges(address).size
    while at < size:
        where = f"{without_credentials(address)}, record {number:,}"
        file.seek(at)
        length = _length(file.read(_HEADER))
        if length is None:
            raise DataError(f"{where}: is damaged: the checksum of its length is not right. Copy the file again.")
        start = at + _HEADER
        at = start + length + 4
        if at > size:
            raise DataError(f"{where}: is truncated, as the file ends after {size:,} bytes. Copy it again.")
        try:
            yield where, _features(file, Range(start, start + length))
        except (ValueError, IndexError) as error:
            raise DataError(f"{where}: is not a tf.train.Example. Only these are read.") from error
        number += 1


def _features(file: BinaryIO, record: Range) -> dict[str, Range]:
    """Return the features of an Example."""
    found = {}
    for _, features in _fields(file, record):
        for _, entry in _fields(file, features):
            key, value = (one for _, one in _fields(file, entry))
            file.seek(key.start)
            found[file.read(key.end - key.start).decode()] = value
    return found


def _fields(file: BinaryIO, message: Range) -> Iterator[tuple[int, Range]]:
    """Yield the fields of a message that have a length: their numbers, and where they are."""
    at = message.start
    while at < message.end:
        file.seek(at)
        tag = _varint(file)
        if tag & 7 == 0:
            _varint(file)
            at = file.tell()
            continue
        length = _varint(file) if tag & 7 == 2 else -1
        start = file.tell()
        if length < 0 or start + length > message.end:
            raise ValueError("not a message")
        at = start + length
        yield tag >> 3, Range(start, at)


def _varint(file: BinaryIO) -> int:
    """Read a number."""
    value = shift = 0
    while shift < 70:
        byte = file.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7
    raise ValueError("not a number")


def _value(file: BinaryIO, features: dict[str, Range], key: str | None, where: str) -> Range | int:
    """Return the first value of a feature: where its bytes are, or the number."""
    if key not in features:
        raise DataError(f"{where}: has no {key}, but {named(sorted(features), 20)}.")
    for kind, values in _fields(file, features[key]):
        if kind == 1:  # bytes
            for _, value in _fields(file, values):
                return value
        if kind == 3 and values.start < values.end:  # integers, packed after a tag and a length, or each with a tag
            file.seek(values.start)
            if _varint(file) == 10:
                _varint(file)
            number = _varint(file)
            return number - (1 << 64) if number >> 63 else number
    raise OptionNeeded(f"{where}: its {key} is empty, or not bytes or an integer. {ADVICE}")


def _text(file: BinaryIO, text: Range, where: str, errors: str = "strict") -> str:
    """Read a label or a name; `errors` are those of bytes.decode."""
    file.seek(text.start)
    try:
        return file.read(min(text.end - text.start, 4096)).decode(errors=errors).strip()
    except UnicodeDecodeError as error:
        raise OptionNeeded(f"{where}: its label is not text in UTF-8. {ADVICE}") from error
