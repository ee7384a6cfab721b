"""Labels as archives store them, numbers or names, to the labels of classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError
from loaders.archives.catalog import Catalog, Reader, Rows, check_labels, numbered
from loaders.archives.forms import OptionNeeded, ReadOptions
from loaders.class_names import MOST_CLASSES, imagenet, wordnet_ids
from loaders.transport.remote import is_remote

FEW = 10  # images, from which on a class for each of them is taken for a mistake
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_NO_CLASS = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf)|\[.*\]", re.I)  # a target of regression, one-hot
ADVICE = "Give --label KEY."
THREADS = {False: 1, True: 16}  # a store answers one request per round trip


@dataclass
class Images:
    """Images of a split, whose labels have yet to be understood."""

    files: Sequence[str]
    rows: Rows = field(default_factory=Rows)
    values: list[str] = field(default_factory=list)  # what is stored as the label of each

    def add(self, file: int, name: str, offset: int, size: int, value: str) -> None:
        """Add an image; the arguments are as in Catalog."""
        self.rows.add(file, name, offset, size, 0)
        self.values.append(value)

    def where(self, index: int) -> str:
        """Return where an image is, for messages."""
        name = self.rows.names[index].decode("utf-8", "surrogateescape")
        return f"{without_credentials(self.files[self.rows.file[index]])}, {name}"


def index_files(files: Sequence[str], index: Callable[[int], Images]) -> Images:
    """Return the images of a split's files, in order; `index` returns those of one, given its number."""
    whole = Images(files)
    with ThreadPoolExecutor(THREADS[is_remote(files[0])]) as pool:
        for part in pool.map(index, range(len(files))):
            whole.rows.extend([part.rows])
            whole.values += part.values
    return whole


def labeled(
    splits: dict[str, Images], reader: Reader, options: ReadOptions, classes: list[str] | None
) -> tuple[dict[str, Catalog], list[str] | None]:
    """Return the images with their labels, in the order of the files, and the classes; the rest is as in `resolve`."""
    places = [(images, index) for images in splits.values() for index in range(len(images.values))]
    values = [images.values[index] for images, index in places]
    labels, classes = resolve(values, options, classes, lambda at: places[at][0].where(places[at][1]))
    parts = np.split(labels, np.cumsum([len(images.values) for images in splits.values()])[:-1])
    catalogs = {
        split: replace(images.rows.catalog(images.files, reader, mixed=True), labels=part)
        for (split, images), part in zip(splits.items(), parts, strict=True)
    }
    return catalogs, classes


def classes_by_names(catalogs: Iterable[Catalog]) -> list[str] | None:
    """Return ImageNet's classes if labels have no names, but the images' names, of a split, have ImageNet's."""
    for catalog in catalogs:
        names = catalog.names.tolist()
        found = [next(iter(wordnet_ids(name)), "") for name in names]
        labels = list(imagenet())
        agreeing = [one == labels[at] for one, at in zip(found, catalog.labels.tolist(), strict=True) if at < 1000]
        if all(found) and len(agreeing) == len(found) and sum(agreeing) > len(found) / 2:
            return labels
    return None


def resolve(
    values: Sequence[str], options: ReadOptions, classes: list[str] | None, where: Callable[[int], str]
) -> tuple[np.ndarray, list[str] | None]:
    """Return each image's label, int64 [N], and the classes.

    Args:
        values: what is stored for each image: numbers, or names of classes.
        options: `label_offset` is added to numbers.
        classes: by label, as far as they are known.
        where: the place of an image, given its index, for messages.

    Raises:
        DataError: a label is missing, or is not one of the classes.
    """
    if missing := [index for index, value in enumerate(values) if not value]:
        raise DataError(f"{where(missing[0])}: its label is empty. Write a number or the name of its class there.")
    if not all(map(_NUMBER.fullmatch, values)):
        if classes is None and all(map(_NO_CLASS.fullmatch, values)):
            odd = _first_odd(values)
            raise OptionNeeded(
                f"{where(odd)}: its label is {_short(values[odd])}; a label is a whole number from 0 to "
                f"{MOST_CLASSES - 1:,}, or the name of a class. {ADVICE}"
            )
        return _named(values, options, classes, where)
    labels = np.array([int(value) for value in values], np.int64) + options.label_offset
    check_labels(labels, classes, where)
    return labels, classes


def _named(
    values: Sequence[str], options: ReadOptions, classes: list[str] | None, where: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    """As `resolve`, of names; all of those that occur are the classes if these are not known."""
    if options.label_offset:
        odd = _first_odd(values)
        raise DataError(
            f"{where(odd)}: its label is {_short(values[odd])}, which is not a number. Leave out --label-offset, or "
            "name with --label KEY where the numbers are."
        )
    found, labels = numbered(values) if classes is None else (classes, [])
    if classes is not None:
        known = {name: label for label, name in enumerate(classes)}
        for index, value in enumerate(values):
            if value not in known:
                raise DataError(f"{where(index)}: its label is {_short(value)}, which is not one of the classes.")
        labels = [known[value] for value in values]
    elif len(found) == len(values) >= FEW:
        raise OptionNeeded(
            f"{where(0)}: its label is {_short(values[0])}, and no other image has the same, nor do any two of all "
            f"{len(values):,}: these are not classes. {ADVICE}"
        )
    return np.array(labels, np.int64), found


def _first_odd(values: Sequence[str]) -> int:
    """Return the index of the first label that is not a whole number."""
    return next(index for index, value in enumerate(values) if not _NUMBER.fullmatch(value))


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")
