"""Parquet files, such as Hugging Face's: a column of images and one of labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError, counted, named
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy, Rows
from loaders.archives.forms import ReadOptions
from loaders.archives.labels import ADVICE, resolve
from loaders.archives.order import near
from loaders.archives.place import Place
from loaders.archives.row_groups import CACHE, LARGEST, RowReader, column, opened, starts
from loaders.archives.webdataset import TEST, split_of
from loaders.class_names import imagenet

LABEL = "label"
IMAGES = ("image", "img", "jpg", "picture")  # the first of them, if several columns hold images
_FOLDERS = ("data/", "default/")  # Hugging Face's
_WITH_CLASS = re.compile(r"(.*)_n\d{8}(\.\w+)")


def split_files(place: Place) -> dict[str | None, list[str]]:
    """Return the parquet files by the split of their name, or of the folder that they are in."""
    top = place.names()
    if place.only or not any(split_of(name) for name in top if name.endswith("/")):
        if files := [name for name in top if name.endswith(".parquet")]:
            return _by_split(files)
    for folder in ["", *(name for name in top if name in _FOLDERS)]:
        below = [folder + name for name in (place.names(folder[:-1]) if folder else top)]
        folders = [name for name in below if name.endswith("/") and split_of(name.removeprefix(folder))]
        files = [name for name in below if name.endswith(".parquet") and folder]
        files += [one + name for one in folders for name in place.names(one[:-1]) if name.endswith(".parquet")]
        if files:
            return _by_split(files)
    return {}


def _by_split(files: Iterable[str]) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {}
    for name in files:
        *folders, last = name.split("/")
        found.setdefault(split_of(folders[-1] if folders else "") or split_of(last), []).append(name)
    return found


def is_parquet(place: Place) -> bool:
    """Whether a place is or holds parquet files."""
    return bool(split_files(place))


def open_parquet(place: Place, options: ReadOptions) -> DataCopy:
    """Open parquet files; `options.label` is the name of the column of labels."""
    by_split, remarks = split_files(place), []
    if tests := by_split.pop(TEST, []):
        remarks.append(f"{counted(len(tests), 'file is', 'files are')} left out, as test images ({named(tests)}).")
    if odd := by_split.pop(None, []):
        if by_split:
            raise DataError(f"{place.given}: the names of {named(odd)} say neither train nor val. Rename or move them.")
        by_split = {UNSPLIT: odd}
    if not by_split:
        raise DataError(f"{place.given}: holds test images alone. To use them as val/, rename their files.")
    read = {str(split): _read(place, names, options) for split, names in sorted(by_split.items(), key=str)}
    first = next(iter(read.values()))
    known = next((split.columns.classes for split in read.values() if split.columns.classes), None)
    if (
        known
        and len(known) == len(imagenet())
        and any(re.search(rb"n\d{8}[_.]", name) for name in first.rows.names[:1])
    ):
        known = list(imagenet())  # Hugging Face names its classes by words; these are compared with the files' names
    places = [(split, index) for split in read.values() for index in range(len(split.values))]
    values = [split.values[index] for split, index in places]
    labels, classes = resolve(values, options, known, lambda at: places[at][0].where(places[at][1]))
    parts = np.split(labels, np.cumsum([len(split.values) for split in read.values()])[:-1])
    splits = {name: split.catalog(name, part) for (name, split), part in zip(read.items(), parts, strict=True)}
    return DataCopy("parquet files", splits, classes, remarks)


@dataclass(frozen=True)
class _Columns:
    """Where a file has what is needed."""

    image: str  # `image.bytes`
    path: str | None  # `image.path`
    label: str
    classes: list[str] | None  # by label, if Hugging Face's description names them


@dataclass
class _Split:
    """Images of a split, whose labels have yet to be understood."""

    columns: _Columns
    files: list[str]
    rows: Rows
    values: list[str]  # what is stored as each image's label
    groups: list[int]  # of each image, counted through all files
    has_paths: bool

    def where(self, index: int) -> str:
        """Return where an image is, for messages."""
        return f"{without_credentials(self.files[self.rows.file[index]])}, row {self.rows.offsets[index]:,}"

    def catalog(self, name: str, labels: np.ndarray) -> Catalog:
        """Return the images with these labels, in an image folder's order if all of them fit into memory."""
        stored = self.rows.catalog(self.files, RowReader(self.columns.image), mixed=True)
        stored = replace(stored, labels=labels)
        groups = np.array(self.groups)
        if self.has_paths and stored.sizes.sum() <= CACHE:
            sizes = [len(stored.read(index)) for index in range(len(stored))]
            names = [_WITH_CLASS.sub(r"\1\2", path.decode().rpartition("/")[2]) for path in self.rows.names]
            order = sorted(range(len(names)), key=lambda index: (labels[index], names[index]))
            return replace(stored, sizes=np.array(sizes, np.int64), mixed=False).take(np.array(order, np.int64))
        largest = int(np.bincount(groups, stored.sizes).max()) if len(groups) else 1
        return near(stored, groups, max(1, CACHE // max(1, largest))) if name != "val" else stored


def _read(place: Place, names: list[str], options: ReadOptions) -> _Split:
    """Index the files of a split."""
    files = [place.address(name) for name in names]
    split = _Split(_columns(files[0], options), files, Rows(), [], [], True)
    for file, address in enumerate(files):
        columns = _columns(address, options)
        if replace(columns, classes=None) != replace(split.columns, classes=None):
            raise DataError(f"{without_credentials(address)}: its columns are other ones than those of {names[0]}.")
        for group in range(opened(address).metadata.num_row_groups):
            _read_group(split, file, address, group)
    return split


def _read_group(split: _Split, file: int, address: str, group: int) -> None:
    """Add the rows of a row group."""
    columns, first = split.columns, int(starts(address)[group])
    about = opened(address).metadata.row_group(group)
    image = next(one for one in map(about.column, range(about.num_columns)) if one.path_in_schema == columns.image)
    where = f"{without_credentials(address)}, row group {group}"
    if image.statistics is not None and image.statistics.has_null_count and image.statistics.null_count:
        raise DataError(
            f"{where}: {counted(image.statistics.null_count, 'row has', 'rows have')} no image, a path at most. "
            "Write the images themselves into the file, or a table of their paths (docs/archives.md)."
        )
    if image.total_uncompressed_size > LARGEST:
        raise DataError(
            f"{where}: takes {image.total_uncompressed_size / 2**30:.1f} GiB, all of which has to be read for an "
            "image. Write the file again in smaller row groups, of 100 images."
        )
    values = column(address, group, columns.label).to_pylist()
    paths = column(address, group, columns.path).to_pylist() if columns.path else [None] * len(values)
    size = image.total_uncompressed_size // max(1, about.num_rows)
    for row, (value, path) in enumerate(zip(values, paths, strict=True), first):
        split.has_paths = split.has_paths and bool(path)
        split.rows.add(file, path or f"row {row}", row, size, 0)
        split.values.append("" if value is None else str(value).strip())
    number = split.groups[-1] + 1 if split.groups else 0
    split.groups += [number] * len(values)


def _columns(address: str, options: ReadOptions) -> _Columns:
    """Return the columns of a file; raises a DataError that names those that are there."""
    schema, where = opened(address).schema_arrow, without_credentials(address)
    import pyarrow

    there = named([f"{field.name} ({_short(field.type)})" for field in schema], 20)
    images = [(field.name, kind) for field in schema if (kind := _image_columns(field, pyarrow.types))]
    chosen = [one for name in IMAGES for one in images if one[0] == name] or images
    if not chosen:
        raise DataError(
            f"{where}: has no column of images, which are bytes, or bytes with a path, as Hugging Face has them; it "
            f"has {there}."
        )
    if len(images) > 1 and chosen == images:
        raise DataError(f"{where}: has several columns of images: {there}. Rename the one to be used to image.")
    label = options.label or LABEL
    if label not in schema.names:
        raise DataError(f"{where}: has no column {label}; it has {there}. {ADVICE}")
    kind = schema.field(label).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise DataError(f"{where}: its column {label} has type {_short(kind)}, not integers or names. {ADVICE}")
    image, path = chosen[0][1]
    return _Columns(image, path, label, _classes(schema.metadata or {}, label))


def _image_columns(field: Any, types: Any) -> tuple[str, str | None] | None:
    """Return the column of bytes in a field, and that of paths; None if it does not hold images."""
    if types.is_binary(field.type) or types.is_large_binary(field.type):
        return field.name, None
    if not types.is_struct(field.type):
        return None
    inside = {one.name: one.type for one in field.type}
    if "bytes" not in inside or not (types.is_binary(inside["bytes"]) or types.is_large_binary(inside["bytes"])):
        return None
    return f"{field.name}.bytes", f"{field.name}.path" if "path" in inside else None


def _classes(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """Return the names of classes in Hugging Face's description of the columns."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    names = [str(name) for name in names] if isinstance(names, list) else []
    return names if names and len(set(names)) == len(names) else None


def _short(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."
