"""Sort a flat val/, as in ImageNet's archive of validation images, into one folder per class.

The moves are written to val_moves.csv first, so that an interrupted fold can be continued and undone.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from common.cells import as_cell, from_cell
from common.errors import DataError, named
from common.whole_files import whole_file
from loaders.archives import val_labels
from loaders.storage.imagefolder import class_names
from loaders.storage.inspection_splits import loose_images

LOG = "val_moves.csv"  # next to val/: from,to relative to val/, names as `as_cell` writes them
Moves = list[tuple[str, str]]


def fold(root: Path, mapping: Path) -> int:
    """Move the images that lie directly in val/ into their classes' folders, and return their number.

    `mapping` is a text file with a line per image: its name and class, or its class alone in the order of the sorted
    names; Kaggle's LOC_val_solution.csv; or the development kit's ILSVRC2012_validation_ground_truth.txt with its
    meta.mat in the same folder. A DataError means that nothing was moved: the mapping misses images, names classes
    that train/ lacks, or files exist already.
    """
    train, val = root / "train", root / "val"
    for folder in (train, val):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Images are sorted into the classes that train/ has.")
    names = loose_images(val)
    if not names:
        return 0
    before = _read_log(root)
    everything = sorted({*names, *(name for name, _ in before)})
    classes = _classes_of(everything, mapping, set(class_names(train)))
    moves = [(name, f"{classes[name]}/{name}") for name in names]
    if taken := [target for _, target in moves if (val / target).exists()]:
        raise DataError(f"{val}: {named(taken)} are there already. Compare them with those in {val} and delete one.")
    lying = set(names)
    log = [*(move for move in before if move[0] not in lying), *moves]
    with whole_file(root / LOG) as temporary, temporary.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([as_cell(name) for name in move] for move in log)
    for name, target in moves:
        (val / target).parent.mkdir(exist_ok=True)
        (val / name).rename(val / target)
    return len(moves)


def unfold(root: Path) -> int:
    """Move back what `fold` moved, and return the number of images; DataError without a record of a move."""
    if not (root / LOG).is_file():
        raise DataError(f"{root / LOG}: is missing, so that it is unknown what was moved.")
    val, count = root / "val", 0
    moves = _read_log(root)
    for name, target in moves:
        if (val / target).is_file() and not (val / name).exists():
            (val / target).rename(val / name)
            count += 1
    for folder in {(val / target).parent for _, target in moves}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    (root / LOG).unlink()
    return count


def _read_log(root: Path) -> Moves:
    """Return the moves that were logged before."""
    path = root / LOG
    if not path.is_file():
        return []
    with path.open(newline="", errors="surrogateescape") as file:
        return [(from_cell(name), from_cell(target)) for name, target in csv.reader(file)]


def _classes_of(names: Sequence[str], mapping: Path, allowed: set[str]) -> dict[str, str]:
    """Return each image's class; DataError if it has none, or one that train/ lacks."""
    try:
        lines = val_labels.parse(mapping.read_bytes(), str(mapping))
        if all(name is None for name, _ in lines) and not {label for _, label in lines} <= allowed:
            lines = _resolved(lines, mapping)
        return dict(zip(names, val_labels.classes_of(names, lines, str(mapping), allowed), strict=True))
    except OSError as error:
        raise DataError(f"{mapping}: cannot be read as a text file ({error}).") from error
    except DataError as error:
        raise DataError(f"{error} Nothing was moved.") from error


def _resolved(lines: val_labels.Lines, mapping: Path) -> val_labels.Lines:
    """Return lines with classes' names; the development kit translates ILSVRC's numbers."""
    if not all(label.isdigit() for _, label in lines):
        return lines
    kit = mapping.parent / val_labels.META
    if not kit.is_file():
        raise DataError(
            f"{mapping}: gives classes as ILSVRC's own numbers, whose names only the development kit has: copy its "
            f"meta.mat to {kit}, or use a mapping with names, such as Kaggle's LOC_val_solution.csv."
        )
    return val_labels.resolved(lines, str(mapping), kit.read_bytes(), str(kit))
