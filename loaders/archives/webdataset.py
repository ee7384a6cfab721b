"""WebDataset tars: consecutive members of the same name, up to the first dot, are one sample."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from common.errors import DataError, named
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy, Rows, check_label
from loaders.archives.forms import ReadOptions
from loaders.archives.place import Place, ranges, read_range
from loaders.archives.tars import Member, members
from loaders.class_names import imagenet
from loaders.storage.imagefolder import EXTENSIONS

LABEL = "cls"
_SPLITS = (("val", re.compile(r"val(id(ation)?)?(?![a-z])", re.I)), ("train", re.compile(r"train", re.I)))
_HEAD = 4  # members that are looked at to recognize one


def is_webdataset(place: Place) -> bool:
    """Whether a place holds tars whose first members are an image and what belongs to it."""
    tars = [name for name in place.names() if name.endswith(".tar")]
    if not tars:
        return False
    first = [member for _, member in zip(range(_HEAD), members(place.address(tars[0])), strict=False)]
    keys = [split_name(member.name) for member in first]
    return len(keys) > 1 and keys[0][0] == keys[1][0] and any(is_image(key[1]) for key in keys)


def split_name(name: str) -> tuple[str, str]:
    """Return a member's sample and what it is of it: `a/b`, `seg.png` of `a/b.seg.png`."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()


def is_image(extension: str) -> bool:
    """Whether a member is an image, by its extension."""
    return f".{extension}" in EXTENSIONS


def split_of(name: str) -> str | None:
    """Return the split that a tar's name tells; None for neither."""
    return next((split for split, pattern in _SPLITS if pattern.search(PurePosixPath(name).name)), None)


def open_webdataset(place: Place, options: ReadOptions) -> DataCopy:
    """Open tars; `options.label` is the extension of the members that hold labels."""
    tars = [name for name in place.names() if name.endswith(".tar")]
    by_split: dict[str, list[str]] = {}
    for name in tars:
        by_split.setdefault(split_of(name) or UNSPLIT, []).append(name)
    if UNSPLIT in by_split and len(by_split) > 1:
        odd = named(by_split[UNSPLIT])
        raise DataError(f"{place.given}: {odd}: the name says neither train nor val, as others do. Rename or move it.")
    splits = {split: _catalog(place, names, options) for split, names in sorted(by_split.items())}
    classes = list(imagenet()) if "imagenet1k" in tars[0] else None
    return DataCopy("WebDataset tars", splits, classes)


def _catalog(place: Place, names: list[str], options: ReadOptions) -> Catalog:
    """Index the tars of a split."""
    addresses, rows = [place.address(name) for name in names], Rows()
    for file, address in enumerate(addresses):
        for parts in _samples(address):
            images = [part for part in parts if is_image(part)]
            if not images:
                continue
            image = parts[images[0]]
            where = f"{address}, {image.name}"
            rows.add(file, image.name, image.offset, image.size, _label(address, parts, options, where))
    return rows.catalog(addresses, read_range, mixed=True)


def _samples(address: str) -> Iterator[dict[str, Member]]:
    """Yield the samples of a tar: their members, by extension."""
    current, parts = None, dict[str, Member]()
    for member in members(address):
        key, extension = split_name(member.name)
        if key != current and current is not None:
            yield parts
            parts = {}
        current = key
        parts[extension] = member
    if current is not None:
        yield parts


def _label(address: str, parts: dict[str, Member], options: ReadOptions, where: str) -> int:
    """Read a sample's label."""
    extension = options.label or LABEL
    if extension not in parts:
        raise DataError(f"{where}: has no .{extension} with its label, only {named(sorted(parts))}. Give --label KEY.")
    text = ranges(address).read(parts[extension].offset, parts[extension].size)
    try:
        label = int(text) + options.label_offset
    except ValueError as error:
        raise DataError(f"{where}: its label is {text[:40]!r}, which is not a whole number.") from error
    check_label(label, None, where)
    return label
