"""Some of a source's images: those of chosen classes, or those of a split that is made here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from common.errors import DataError, counted, named
from common.suggest import did_you_mean
from loaders.class_names import MOST_BYTES
from tools.convert.sources import Part, Source
from tools.split.options import Rule
from tools.split.sides import decide, look_at_all
from tools.split.source import Source as Listed

Sources = dict[str, Source]


@dataclass(frozen=True)
class SubsetPart:
    """Some images of a subset, with their labels in it."""

    indices: np.ndarray  # in the subset, int64 [n]
    part: Part  # these in the whole source
    labels: Sequence[int]

    def name_of(self, place: int) -> str:
        """Return where the image is."""
        return self.part.name_of(place)

    def read(self, place: int) -> tuple[bytes, int]:
        """Return the image's bytes and label."""
        return self.part.read(place)[0], self.labels[place]


class SubsetSource:
    """The images of a source at some indices, int64 [N], with other labels, int64 [N]."""

    def __init__(self, source: Source, indices: np.ndarray, labels: np.ndarray, remarks: Sequence[str]) -> None:
        self.source, self.indices, self.labels = source, indices, labels
        self.sizes = source.sizes[indices]
        self.remarks, self.sorted_by_class = remarks, source.sorted_by_class
        digest = hashlib.sha256(source.fingerprint.encode())
        for values in (indices, labels):
            digest.update(values.tobytes())
        self.fingerprint = digest.hexdigest()

    def part(self, indices: np.ndarray) -> SubsetPart:
        """Return the images at these indices of the subset."""
        return SubsetPart(indices, self.source.part(self.indices[indices]), self.labels[indices].tolist())


def with_classes(sources: Sources, classes: Sequence[str] | None, file: str, path: str) -> tuple[Sources, list[str]]:
    """Return the images of the classes that a file lists, with labels by sorted class, and these classes.

    Raises:
        DataError: the source, at `path`, does not have one of them.
    """
    if not classes:
        raise DataError(f"--classes {file}: {path} has no names of classes, only numbers. Leave it out.")
    chosen = read_classes(file, classes, path)
    new = np.full(len(classes), -1)  # label of each class, -1 for those that are left out
    new[[classes.index(one) for one in chosen]] = np.arange(len(chosen))
    found: dict[str, Source] = {}
    for split, source in sources.items():
        _check_labels(source.labels, classes, path)
        labels = new[source.labels]
        indices = np.flatnonzero(labels >= 0)
        found[split] = SubsetSource(source, indices, labels[indices], source.remarks)
        if empty := np.flatnonzero(np.bincount(labels[indices], minlength=len(chosen)) == 0).tolist():
            none = named([chosen[label] for label in empty])
            raise DataError(f"--classes {file}: {path} has no images of {none} in {split}. Leave them out.")
    return found, chosen


def read_classes(file: str, known: Sequence[str], path: str) -> list[str]:
    """Return the sorted classes that a file lists: a class per line, whatever follows it, or JSON."""
    try:
        if Path(file).stat().st_size > MOST_BYTES:
            raise DataError(f"--classes {file}: holds more than {MOST_BYTES:,} bytes, too many for a list of classes.")
        text = Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"--classes {file}: cannot be read ({error.strerror}). Name a file with a class per line."
        ) from error
    except ValueError as error:
        raise DataError(f"--classes {file}: is not text in UTF-8. Write a class per line.") from error
    allowed, chosen = set(known), dict[str, int]()
    for number, line in _listed(file, text):
        one = line if line in allowed else line.split(maxsplit=1)[0]
        if one not in allowed:
            meant = did_you_mean(one, known)
            raise DataError(f"--classes {file}, line {number}: {line} is not a class of {path}{meant}")
        if (first := chosen.setdefault(one, number)) != number:
            raise DataError(f"--classes {file}, line {number}: {one} is in line {first}, too. Remove one of them.")
    if len(chosen) < 2:
        raise DataError(f"--classes {file}: lists {counted(len(chosen), 'class', 'classes')}; at least 2 are needed.")
    return sorted(chosen)


def _listed(file: str, text: str) -> list[tuple[int, str]]:
    """Return the entries of a list of classes, with the numbers of their lines or, in JSON, of the entries."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            entries = list(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise DataError(f"--classes {file}: is not JSON ({error}). Write a class per line.") from error
        return [(number, str(one).strip()) for number, one in enumerate(entries, 1) if str(one).strip()]
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def split(
    sources: Sources, classes: Sequence[str] | None, rule: Rule, skip: bool, path: str, console: Console, workers: int
) -> Sources:
    """Split data without a val/, as tools.split does.

    Images that cannot be read raise a DataError unless `skip`; then they stay in train, where they will be listed.
    """
    (source,) = sources.values()
    count = len(source.sizes)
    found = look_at_all(console, count, source.part, workers)
    _check_labels(found.labels, classes, path)
    whole = source.part(np.arange(count))
    names = [whole.name_of(place).removeprefix(f"{path.rstrip('/')}/").removeprefix("./") for place in range(count)]
    if (faults := [f"{name}: {fault}" for name, fault in zip(names, found.faults, strict=True) if fault]) and not skip:
        advice = "Replace or delete them, or add --skip-unreadable to leave out whatever cannot be read."
        raise DataError("\n".join([*faults, advice]))
    present, dense = np.unique(found.labels, return_inverse=True)
    known = [classes[label] if classes else f"label {label}" for label in present.tolist()]
    advice = "Add images to them, or leave them out: --classes FILE."
    outcome = decide(console, Listed(path, known, names, dense.tolist(), []), found, rule, advice)
    is_val = np.zeros(count, bool)
    is_val[outcome.used[outcome.is_val]] = True
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    said = f"Split by --val {rule.val:g} --seed {rule.seed}: {len(train):,} for training, {len(val):,} for evaluation."
    return {
        "train": SubsetSource(source, train, found.labels[train], [*source.remarks, said, *outcome.duplicates()]),
        "val": SubsetSource(source, val, found.labels[val], []),
    }


def _check_labels(labels: np.ndarray, classes: Sequence[str] | None, path: str) -> None:
    """Raise a DataError if a label is not one of the classes."""
    if classes and len(wrong := labels[(labels < 0) | (labels >= len(classes))]):
        raise DataError(f"{path}: holds the label {wrong[0]}, but has {len(classes)} classes. Write the data again.")
