"""Labels as archives store them, numbers or names, to the labels of classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from common.errors import DataError
from loaders.archives.catalog import check_label, numbered
from loaders.archives.forms import ReadOptions

FEW = 10  # images, from which on a class for each of them is taken for a mistake
_NUMBER = re.compile(r"[+-]?\d{1,18}")
ADVICE = "Give --label KEY."


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
        return _named(values, options, classes, where)
    labels = np.array([int(value) for value in values], np.int64) + options.label_offset
    outside = labels < 0 if classes is None else (labels < 0) | (labels >= len(classes))
    for index in np.flatnonzero(outside)[:1].tolist():
        check_label(int(labels[index]), len(classes) if classes else None, where(index))
    return labels, classes


def _named(
    values: Sequence[str], options: ReadOptions, classes: list[str] | None, where: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    """As `resolve`, of names; all of those that occur are the classes if these are not known."""
    if options.label_offset:
        odd = next(index for index, value in enumerate(values) if not _NUMBER.fullmatch(value))
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
        raise DataError(
            f"{where(0)}: its label is {_short(values[0])}, and no other image has the same, nor do any two of all "
            f"{len(values):,}: these are not classes. {ADVICE}"
        )
    return np.array(labels, np.int64), found


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")
