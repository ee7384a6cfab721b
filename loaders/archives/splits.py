"""Which split a file belongs to, by its name or its folder's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from common.errors import DataError, counted, named
from loaders.archives.catalog import UNSPLIT
from loaders.archives.place import Place

TEST = "test"
SPLIT_OF = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", TEST: TEST}
"""The split that a name tells which is one of these words, in lower case."""
_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_OF)})(?![a-z])", re.I)


def split_of(name: str) -> str | None:
    """Return the split that a file's or a folder's name tells, `train`, `val` or TEST; None for no or several ones."""
    found = {SPLIT_OF[word.lower()] for word in _WORD.findall(name)}
    return found.pop() if len(found) == 1 else None


def split_of_path(path: str) -> str | None:
    """Return the split that the name of a file's folder tells, or else the file's name."""
    *folders, name = path.split("/")
    return (split_of(folders[-1]) if folders else None) or split_of(name)


def by_split(place: Place, paths: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the files of each split, and remarks; those of no split are UNSPLIT, if there are no others.

    Raises:
        DataError: some names say neither train nor val, as others do, or there are test images alone.
    """
    found: dict[str | None, list[str]] = {}
    for path in paths:
        found.setdefault(split_of_path(path), []).append(path)
    remarks = []
    if tests := found.pop(TEST, []):
        remarks.append(f"{counted(len(tests), 'file is', 'files are')} left out, as test images ({named(tests)}).")
    if odd := found.pop(None, []):
        if found:
            raise DataError(f"{place.given}: the names of {named(odd)} say neither train nor val. Rename or move them.")
        return {UNSPLIT: odd}, remarks
    if not found:
        raise DataError(f"{place.given}: holds test images alone. To use them as val/, rename {named(tests, 1)}.")
    return {str(split): sorted(names) for split, names in sorted(found.items(), key=str)}, remarks


def check_classes(given: str, found: Mapping[str, Iterable[str]]) -> None:
    """Raise a DataError if a split has a class that another one lacks; `found` are the classes of each."""
    classes = {one for each in found.values() for one in each}
    for split, own in found.items():
        if missing := sorted(classes.difference(own)):
            raise DataError(
                f"{given}: {counted(len(missing), 'class has', 'classes have')} no images in {split}/ "
                f"({named(missing)}). Add them, or remove the class from all splits."
            )
