"""Names of classes for people: `tench` for ImageNet's n01440764. No torch."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError, named

IMAGENET = Path(__file__).with_name("imagenet_classes.txt")
"""ImageNet-1k's 1000 WordNet ids in label order, each with torchvision's name for it, which no other class has."""
# Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575, table 2: ILSVRC 2012's classification task.
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
MOST_CLASSES = 10_000_000  # labels are counted in a list; a damaged one must not use up all memory
NOT_ALL = "This is not all of ImageNet-1k"  # start of a remark
BESIDE = "classes.txt"  # next to train/ and val/
MOST_BYTES = 2**24  # of a file of names
_WORDNET_ID = re.compile(rb"(?<![a-z0-9])n\d{8}(?!\d)")
FORMS = 'write lines such as "n01440764 tench" (a tab, if the class has spaces), or JSON: a list by label, or an object'


def names_of(classes: Sequence[str], file: Path | None = None) -> list[str]:
    """Return one name per class: the file's, else ImageNet's if all classes are its WordNet ids, else the class itself.

    The file holds a line "class name" per class, as LOC_synset_mapping.txt does, or JSON: a list by label, or an object
    by class or by label. It may name other classes, too. Raises a DataError if it does not name these.
    """
    if file is not None:
        return _from_file(classes, file)
    known = imagenet()
    return [known[one] for one in classes] if all(one in known for one in classes) else list(classes)


def names_beside(path: str, classes: Sequence[str]) -> list[str]:
    """Return `names_of` the classes of the data set at a path, with its classes.txt if it has one on this machine."""
    file = Path(path, BESIDE)
    return names_of(classes, file if path and "://" not in path and file.is_file() else None)


def shown(one: str, name: str) -> str:
    """Return a class with its name, as in `tench (n01440764)`."""
    return one if name == one else f"{name} ({one})"


def all_shown(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return `shown` of each class."""
    return [shown(one, name) for one, name in zip(classes, names, strict=True)]


@functools.cache
def imagenet() -> Mapping[str, str]:
    """Return the name of each of ImageNet-1k's WordNet ids, in label order."""
    lines = IMAGENET.read_text(encoding="ascii").splitlines()
    return {one: name for one, _, name in (line.partition(" ") for line in lines)}


def are_imagenet(classes: Sequence[str] | None) -> bool:
    """Whether classes are known, and all of them are WordNet ids of ImageNet-1k."""
    return bool(classes) and set(classes or ()) <= set(imagenet())


def wordnet_ids(name: bytes) -> list[str]:
    """Return the WordNet ids in a file's name."""
    return [one.decode() for one in _WORDNET_ID.findall(name)]


def _from_file(classes: Sequence[str], file: Path) -> list[str]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"{file}: holds more than {MOST_BYTES:,} bytes, too many for names of classes; {FORMS}")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); name a file with the names of the classes"
        ) from error
    except ValueError as error:
        raise DataError(f"{file}: is not text in UTF-8; {FORMS}") from error
    names = _of_json(classes, file, text) if text.lstrip()[:1] in ("[", "{") else _of_lines(classes, file, text)
    if wrong := [one for one, name in zip(classes, names, strict=True) if not (isinstance(name, str) and _fits(name))]:
        raise DataError(f"{file}: the name of {wrong[0]} is not a line of printable text; {FORMS}")
    return names


def _fits(name: str) -> bool:
    return bool(name.strip()) and name.isprintable()


def _of_lines(classes: Sequence[str], file: Path, text: str) -> list[Any]:
    known, found = set(classes), dict[str, str]()
    for line in map(str.strip, text.splitlines()):
        one, _, name = line.partition("\t") if "\t" in line else line.partition(" ")
        # A line that is a class, as in a list of the classes, has no other name for it.
        found |= {line: line} if line in known else {one.strip(): name.strip()}
    return _chosen(classes, file, found)


def _of_json(classes: Sequence[str], file: Path, text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON ({error}); {FORMS}") from error
    if isinstance(content, dict):
        labels = [str(label) for label in range(len(classes))]
        by_label = content.keys() == set(labels) and not content.keys() & set(classes)
        return _chosen(labels if by_label else classes, file, content)
    if len(content) != len(classes):
        raise DataError(f"{file}: lists {len(content):,} names for {len(classes):,} classes; list one per class")
    return content


def _chosen(classes: Sequence[str], file: Path, found: Mapping[str, Any]) -> list[Any]:
    if missing := [one for one in classes if one not in found]:
        raise DataError(f"{file}: does not name {named(missing)}; {FORMS}")
    return [found[one] for one in classes]
