"""Tables of paths and labels, as CSV, TSV or JSON lines, among them Hugging Face's metadata files of image folders."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.errors import DataError, counted
from common.folders import S3Folder
from common.suggest import did_you_mean, listing
from loaders.archives.catalog import UNSPLIT, DataCopy
from loaders.archives.catalog import Rows as CatalogRows
from loaders.archives.forms import ReadOptions
from loaders.archives.labels import resolve
from loaders.archives.place import Place, file_sizes, ranges, read_file
from loaders.archives.splits import SPLIT_OF, TEST
from loaders.archives.table_rows import LABEL, PATHS, Row, columns, is_table, rows
from loaders.transport.remote import is_remote

_SPLIT_OF = SPLIT_OF | {"dev": "val", "eval": "val", "testing": TEST}  # the test split is left out
_METADATA = "metadata"  # the stem of Hugging Face's tables
_HEAD = 1 << 16  # bytes of a table that are looked at to recognize it


class _Table(NamedTuple):
    """A table of a data set: its name in the place, and the split of all its images, if its name says that."""

    name: str
    split: str


class _Image(NamedTuple):
    """An image that a table lists."""

    path: str  # relative to the place, with slashes
    label: str
    split: str  # train, val, test or UNSPLIT
    where: str  # the table's line, for messages


def is_tables(place: Place) -> bool:
    """Whether a place is a table of paths, or a folder that holds some and no folders of classes or shards."""
    return bool(_tables(place)) and (
        place.only is not None or not any(_is_other(place, name) for name in place.names())
    )


def open_tables(place: Place, options: ReadOptions) -> DataCopy:
    """Open tables; `options.label` is the column that holds labels, which are names or numbers."""
    tables = _tables(place)
    if not tables:
        raise DataError(f"{place.given}: holds no table with a column {listing(sorted(PATHS))}.")
    column = options.label or LABEL
    images = [image for table in tables if table.split != TEST for image in _images(place, table, column)]
    if all(image.split == UNSPLIT and _first_folder(image) in _SPLIT_OF for image in images):
        images = [image._replace(split=_SPLIT_OF[_first_folder(image)]) for image in images]
    _check(images)
    remarks = [f"{place.address(table.name)}: the test split is left out." for table in tables if table.split == TEST]
    used = [image for image in images if image.split != TEST]
    if tests := len(images) - len(used):
        one, many = "image of the test split is", "images of the test split are"
        remarks.append(f"{place.given}: {counted(tests, one, many)} left out.")
    classes, labels = _labels(used, options)
    sizes = _sizes(place, used)
    splits = {split: CatalogRows() for split in sorted({image.split for image in used})}
    for image, size, label in zip(used, sizes, labels.tolist(), strict=True):
        splits[image.split].add(0, image.path, 0, size, label)
    catalogs = {split: found.catalog([place.root], read_file).by_name() for split, found in splits.items()}
    what = "Hugging Face's image folder" if _is_metadata(tables[0].name) else "a table of paths"
    return DataCopy(what, catalogs, classes, remarks)


def _tables(place: Place) -> list[_Table]:
    """Return the tables of a place: the one file, metadata files, those of splits, or the only one with labels."""
    if place.only:
        return [_Table(place.only, "")] if is_table(place.only) else []
    names = place.names()
    inside = [
        _Table(folder + name, _SPLIT_OF[folder[:-1]])
        for folder in names
        if folder.endswith("/") and folder[:-1] in _SPLIT_OF
        for name in place.names(folder[:-1])
        if _is_metadata(name)
    ]
    found = [_Table(name, _SPLIT_OF.get(_stem(name), "")) for name in names if PATHS & _columns(place, name)]
    metadata = [table for table in found if _is_metadata(table.name)]
    of_splits = [table for table in found if table.split]
    labeled = [table for table in found if LABEL in _columns(place, table.name)]
    return inside or metadata or of_splits or (labeled if len(labeled) == 1 else [])


def _is_other(place: Place, folder: str) -> bool:
    """Whether a folder is train/ or val/ with classes or shards, which are read without tables."""
    if not folder.endswith("/") or folder[:-1] not in _SPLIT_OF:
        return False
    names = place.names(folder[:-1])
    labeled = any(LABEL in _columns(place, folder + name) for name in names if _is_metadata(name))
    return "index.json" in names or (any(name.endswith("/") for name in names) and not labeled)


def _is_metadata(name: str) -> bool:
    return is_table(name) and _stem(name) == _METADATA


def _stem(name: str) -> str:
    return posixpath.basename(name).partition(".")[0].lower()


def _columns(place: Place, name: str) -> set[str]:
    """Return the columns of a file in a place; none if it is not a table."""
    return set(columns(name, ranges(place.address(name)).read(0, _HEAD))) if is_table(name) else set()


def _images(place: Place, table: _Table, column: str) -> Iterator[_Image]:
    """Yield the images that a table lists."""
    address = place.address(table.name)
    root = "/" + place.root if is_remote(place.root) else posixpath.abspath(place.root)
    for row in rows(address, place.read(table.name), column):
        where = f"{address}, line {row.line}"
        split = _split(table, row, where)
        if not row.label and split != TEST:
            raise DataError(f"{where}: its {column} is empty. Fill it in, or remove the line.")
        given = "/" + row.path if is_remote(row.path) else row.path
        path = posixpath.normpath(posixpath.join(root, posixpath.dirname(table.name), given))
        inside = posixpath.relpath(path, posixpath.normpath(root))
        if inside.split("/")[0] == "..":
            raise DataError(f"{where}: {row.path} is outside of the table's folder, {place.root}. Move it there.")
        yield _Image(inside, row.label, split, where)


def _split(table: _Table, row: Row, where: str) -> str:
    """Return the split of a row: what its column says, or its table's name."""
    if not row.split:
        return table.split or UNSPLIT
    if (split := _SPLIT_OF.get(row.split.lower())) is None:
        raise DataError(f"{where}: its split is {row.split}; it must be train, val or test.")
    if table.split and table.split != split:
        raise DataError(f"{where}: its split is {row.split}, in a table of {table.split}.")
    return split


def _first_folder(image: _Image) -> str:
    return image.path.partition("/")[0] if "/" in image.path else ""


def _check(images: list[_Image]) -> None:
    """Raise a DataError at the first image that is listed twice, or has no split though others have one."""
    seen: dict[str, str] = {}
    unsplit = {image.split for image in images} - {UNSPLIT}
    for image in images:
        if (first := seen.setdefault(image.path, image.where)) is not image.where:
            raise DataError(f"{image.where}: {image.path} is listed already, in {first}. Remove one of the lines.")
        if unsplit and image.split == UNSPLIT:
            raise DataError(f"{image.where}: names no split, as others do. Fill in its column split: train or val.")


def _labels(images: list[_Image], options: ReadOptions) -> tuple[list[str] | None, np.ndarray]:
    """Return the classes and the labels: numbers as they are, if all are numbers; otherwise classes in sorted order."""
    labels, classes = resolve([image.label for image in images], options, None, lambda index: images[index].where)
    if classes is not None:
        _check_classes(images)
    return classes, labels


def _check_classes(images: list[_Image]) -> None:
    """Raise a DataError at the first image of val/ whose class has no image in train/, as if it were misspelled."""
    known = {image.label for image in images if image.split == "train"}
    for image in images if known else []:
        if image.label not in known:
            meant = did_you_mean(image.label, known)
            raise DataError(f"{image.where}: no image for training has its label, {image.label}{meant}")


def _sizes(place: Place, images: list[_Image]) -> list[int]:
    """Return the bytes of each image; raises a DataError if some are not there."""
    if isinstance(place.folder, S3Folder):
        stored = {name: size for name, size, _ in place.folder.walk()}
        sizes = [stored.get(image.path, -1) for image in images]
    else:
        sizes = file_sizes([os.path.join(place.root, image.path) for image in images]).tolist()
    if missing := [image for image, size in zip(images, sizes, strict=True) if size < 0]:
        more = f", and so do {len(missing) - 1} more lines" if len(missing) > 1 else ""
        first = missing[0]
        raise DataError(
            f"{first.where}: names {first.path}, which is not a file in {place.root}{more}. "
            "Paths are relative to the table."
        )
    return sizes
