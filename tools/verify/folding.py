"""Sort a flat val/, as in ImageNet's archive of validation images, into one folder per class.

The moves are written to val_moves.csv first, so that an interrupted fold can be continued and undone.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from common.cells import as_cell, from_cell
from common.errors import DataError, named
from common.whole_files import whole_file
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
    lines = _read_mapping(mapping)
    if all(name is None for name, _ in lines):
        if len(lines) != len(names):
            raise DataError(
                f"{mapping}: has {len(lines)} lines for {len(names)} images. Lines without names stand for all "
                "images in the order of their sorted names; complete val/, or use a mapping with names."
            )
        classes = dict(zip(names, _resolved([label for _, label in lines], mapping, allowed), strict=True))
    else:
        classes = _by_name(names, lines, mapping)
    if unknown := sorted(set(classes.values()) - allowed):
        numbers = " Numbers next to names may be labels in another order." if _numeric(unknown) else ""
        raise DataError(
            f"{mapping}: names {len(unknown)} classes that train/ lacks ({named(unknown)}).{numbers} Nothing was moved."
        )
    return classes


def _by_name(names: Sequence[str], lines: Sequence[tuple[str | None, str]], mapping: Path) -> dict[str, str]:
    """Return each image's class, from lines that name the image with or without its suffix."""
    given: dict[str, str] = {}
    for name, label in lines:
        if name is None or given.setdefault(name, label) != label:
            raise DataError(f"{mapping}: gives {name or label} no class, or two. Nothing was moved.")
    found = {name: given.get(name) or given.get(PurePath(name).stem) for name in names}
    if missing := [name for name, label in found.items() if label is None]:
        what = f"has no class for {len(missing)} of {len(names)} images ({named(missing)})"
        raise DataError(f"{mapping}: {what}. Nothing was moved.")
    return {name: label for name, label in found.items() if label is not None}


def _read_mapping(path: Path) -> list[tuple[str | None, str]]:
    """Return the lines of a mapping: (name or None, class)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text file ({error}).") from error
    kaggle = text.startswith("ImageId,PredictionString")
    lines: list[tuple[str | None, str]] = []
    for line in text.splitlines()[1 if kaggle else 0 :]:
        parts = [part.strip() for part in re.split(r",|\s+", line.strip(), maxsplit=1)]
        if len(parts) == 2 and parts[1]:
            lines.append((parts[0], parts[1].split()[0] if kaggle else parts[1]))
        elif parts[0]:
            lines.append((None, parts[0]))
    if not lines:
        raise DataError(f"{path}: is empty. Expected a line per image: its name and its class.")
    return lines


def _resolved(labels: list[str], mapping: Path, allowed: set[str]) -> list[str]:
    """Return labels as class names; the development kit translates ILSVRC's numbers, which are not sorted by name."""
    if set(labels) <= allowed or not _numeric(labels):
        return labels
    kit = mapping.parent / "meta.mat"
    if not kit.is_file():
        raise DataError(
            f"{mapping}: gives classes as ILSVRC's own numbers, whose names only the development kit has: copy its "
            f"meta.mat to {kit}, or use a mapping with names, such as Kaggle's LOC_val_solution.csv."
        )
    from scipy.io import loadmat

    try:
        synsets = loadmat(kit, squeeze_me=True)["synsets"]
        names = {str(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except Exception as error:  # scipy raises anything on a damaged file
        raise DataError(f"{kit}: is not the development kit's ({type(error).__name__}: {error}).") from error
    if strange := sorted(set(labels) - names.keys()):
        raise DataError(f"{mapping}: has numbers that {kit} does not name ({named(strange)}). Nothing was moved.")
    return [names[label] for label in labels]


def _numeric(labels: Sequence[str]) -> bool:
    return all(label.isdigit() for label in labels)
