"""Parquet files, such as Hugging Face's: a column of images and one of labels."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError, counted, named
from loaders.archives.catalog import Catalog, DataCopy
from loaders.archives.forms import OptionNeeded, ReadOptions
from loaders.archives.labels import ADVICE, Images, index_files, labeled
from loaders.archives.order import near
from loaders.archives.place import Place
from loaders.archives.row_groups import CACHE, LARGEST, RowReader, listed, opened, starts
from loaders.archives.splits import by_split, split_of
from loaders.class_names import imagenet, wordnet_ids

LABEL = "label"
IMAGES = ("image", "img", "jpg", "picture")  # the first of them, if several columns hold images
_FOLDERS = ("data/", "default/")  # Hugging Face's
_WITH_CLASS = re.compile(rb"(.*)_n\d{8}(\.\w+)")


def parquet_files(place: Place) -> list[str]:
    """Return the parquet files in a place, or those in data/ or default/, or in folders of splits."""
    top = place.names()
    if place.only or not any(name.endswith("/") and split_of(name) for name in top):
        if files := [name for name in top if name.endswith(".parquet")]:
            return files
    for folder in ["", *(name for name in top if name in _FOLDERS)]:
        below = place.names(folder[:-1])
        files = [folder + name for name in below if name.endswith(".parquet") and folder]
        for split in [folder + name for name in below if name.endswith("/") and split_of(name)]:
            files += [split + name for name in place.names(split[:-1]) if name.endswith(".parquet")]
        if files:
            return files
    return []


def is_parquet(place: Place) -> bool:
    """Whether a place is or holds parquet files."""
    return bool(parquet_files(place))


def open_parquet(place: Place, options: ReadOptions) -> DataCopy:
    """Open parquet files; `options.label` is the name of the column of labels."""
    found, remarks = by_split(place, parquet_files(place))
    files = {split: [place.address(name) for name in names] for split, names in found.items()}
    columns = _columns(next(iter(files.values()))[0], options)
    read = {split: index_files(names, partial(_index, names, columns, options)) for split, names in files.items()}
    known = columns.classes
    of_imagenet = [wordnet_ids(name) for images in read.values() for name in images.rows.names[:1]]
    if known and len(known) == len(imagenet()) and all(of_imagenet):
        known = list(imagenet())  # Hugging Face names its classes by words; these are compared with the files' names
    splits, classes = labeled(read, RowReader(columns.image), options, known)
    return DataCopy("parquet files", {split: _ordered(split, one) for split, one in splits.items()}, classes, remarks)


@dataclass(frozen=True)
class _Columns:
    """Where a file has what is needed."""

    image: str  # `image.bytes`
    path: str | None  # `image.path`
    label: str
    classes: list[str] | None  # by label, if Hugging Face's description names them


def _index(files: list[str], columns: _Columns, options: ReadOptions, file: int) -> Images:
    """Index a file."""
    found, address = Images(files), files[file]
    if replace(_columns(address, options), classes=None) != replace(columns, classes=None):
        first = os.path.basename(files[0])
        raise DataError(f"{without_credentials(address)}: its columns are other ones than those of {first}.")
    for group in range(opened(address).metadata.num_row_groups):
        size = _image_size(address, group, columns.image)
        values = listed(address, group, columns.label)
        paths = listed(address, group, columns.path) if columns.path else [None] * len(values)
        for row, (value, path) in enumerate(zip(values, paths, strict=True), int(starts(address)[group])):
            found.add(file, path or f"row {row}", row, size, "" if value is None else str(value).strip())
    return found


def _image_size(address: str, group: int, name: str) -> int:
    """Return the mean size of the images in a row group; raises a DataError if some are missing, or it is too large."""
    about = opened(address).metadata.row_group(group)
    images = next(one for one in map(about.column, range(about.num_columns)) if one.path_in_schema == name)
    where = f"{without_credentials(address)}, row group {group}"
    if images.statistics is not None and images.statistics.has_null_count and images.statistics.null_count:
        raise DataError(
            f"{where}: {counted(images.statistics.null_count, 'row has', 'rows have')} no image, a path at most. "
            "Write the images themselves into the file, or a table of their paths (docs/archives.md)."
        )
    if images.total_uncompressed_size > LARGEST:
        raise DataError(
            f"{where}: takes {images.total_uncompressed_size / 2**30:.1f} GiB, all of which has to be read for an "
            "image. Write the file again in smaller row groups, of 100 images."
        )
    return int(images.total_uncompressed_size // max(1, about.num_rows))


def _ordered(split: str, catalog: Catalog) -> Catalog:
    """Return the images in an image folder's order if all of them fit into memory; else so that reading is fast."""
    has_paths = not np.char.startswith(catalog.names, b"row ").any()
    if has_paths and catalog.sizes.sum() <= CACHE:
        sizes = np.array([len(catalog.read(index)) for index in range(len(catalog))], np.int64)
        stems = [_WITH_CLASS.sub(rb"\1\2", path.rpartition(b"/")[2]) for path in catalog.names.tolist()]
        order = np.lexsort((np.array(stems, np.bytes_), catalog.labels))
        return replace(catalog, sizes=sizes, mixed=False).take(order)
    if split == "val" or not len(catalog):
        return catalog
    groups = np.empty(len(catalog), np.int64)
    for file, address in enumerate(catalog.files):
        here = catalog.file == file
        groups[here] = (file << 32) + np.searchsorted(starts(address), catalog.offsets[here], side="right")
    _, counts = np.unique(groups, return_counts=True)
    largest = int(counts.max() * catalog.sizes.max())
    return near(catalog, groups, max(1, CACHE // max(1, largest)))


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
        raise OptionNeeded(f"{where}: has no column {label}; it has {there}. {ADVICE}")
    kind = schema.field(label).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise OptionNeeded(f"{where}: its column {label} has type {_short(kind)}, not integers or names. {ADVICE}")
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
