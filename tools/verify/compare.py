"""Compare splits: images that both have, labels that one lacks, and the counts of ImageNet."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from common.errors import named
from loaders.class_names import IMAGENET_IMAGES, all_shown, names_of
from loaders.images.odd_files import CMYK, IMAGENET_CMYK, PNG
from loaders.storage.inspection_splits import Split

IMAGENET_CLASSES = 1000
IMAGENET_VAL_PER_CLASS = 50
_WNID = re.compile(r"n\d{8}")
MOST_RESIZED = 1024  # pixels; the original has sides of several thousand
_CLOSE = 0.1  # relative deviation of the numbers of classes and images


def shared_images(train: Split, val: Split) -> list[str]:
    """Return a sentence for each image of val/ that train/ also holds, byte for byte."""
    train_there, val_there = (np.flatnonzero(split.bytes > 0) for split in (train, val))
    order = train_there[np.argsort(train.digests[train_there], kind="stable")]
    sorted_digests = train.digests[order]
    faults = []
    for place in val_there[np.isin(val.digests[val_there], sorted_digests)]:
        twin = order[np.searchsorted(sorted_digests, val.digests[place])]
        if train.bytes[twin] == val.bytes[place]:
            faults.append(
                f"{val.name_of(place)}: is the same file as {train.name_of(twin)}, so that what was trained on is "
                "evaluated on. Remove one of them."
            )
    return faults


def labels_apart(train: Split, val: Split) -> list[str]:
    """Return a sentence if val has labels that train lacks."""
    if train.faults or val.faults:
        return []  # missing shards lack labels, too
    only = [str(label) for label in np.setdiff1d(val.labels, train.labels)]
    where = f"val: {len(only)} labels ({named(only)})"
    return [f"{where} do not occur in train. Convert both from one data set."] if only else []


def compare_with_imagenet(train: Split, val: Split) -> str | None:
    """Return a sentence if this is ImageNet-1k, completely or nearly; None for other data."""
    classes = train.classes
    known = classes is None or all(map(_WNID.fullmatch, classes))
    counts = {"train": train.images, "val": val.images}
    number = train.num_classes or 0
    if counts == IMAGENET_IMAGES and number == IMAGENET_CLASSES:
        return "This is ImageNet-1k, complete: 1,281,167 and 50,000 images of 1,000 classes."
    near = abs(counts["train"] / IMAGENET_IMAGES["train"] - 1) < _CLOSE and abs(number / IMAGENET_CLASSES - 1) < _CLOSE
    if not known or not (near or (classes is not None and number == IMAGENET_CLASSES)):
        return None
    parts = [
        _against("train", counts["train"], IMAGENET_IMAGES["train"]),
        _against("val", counts["val"], IMAGENET_IMAGES["val"]),
    ]
    if number != IMAGENET_CLASSES:
        parts.append(f"{number:,} of {IMAGENET_CLASSES:,} classes")
    odd = [at for at, count in enumerate(val.per_class) if count != IMAGENET_VAL_PER_CLASS]
    if odd and len(odd) < number / 2:
        names = all_shown(classes, names_of(classes)) if classes else list(map(str, range(number)))
        names = [f"{names[at]}: {val.per_class[at]}" for at in odd]
        parts.append(f"in val, classes without their {IMAGENET_VAL_PER_CLASS} images are {named(names)}")
    return "This looks like ImageNet-1k, but is not all of it: " + "; ".join(parts) + "."


def kind_of_copy(splits: Sequence[Split]) -> str | None:
    """Return a sentence on what has been done to the images of ImageNet; None if they do not tell.

    They tell if all of ImageNet is here, or one of its odd files by its name.
    """
    odd = sum((split.odd for split in splits), Counter())
    here = {kind: sum(count for (found, _), count in odd.items() if found == kind) for kind in (PNG, CMYK)}
    named_odd = sum(count for (_, expected), count in odd.items() if expected)
    whole = {split.name: split.images for split in splits} == IMAGENET_IMAGES
    if not (whole or named_odd):
        return None
    files = f"{here[PNG]} PNG and {here[CMYK]} CMYK {'image' if here[CMYK] == 1 else 'images'}"
    longest = max((max(size) for split in splits for size in split.sizes), default=0)
    if whole and longest <= MOST_RESIZED:
        return f"{files}; no side is longer than {longest} pixels, so that this is a resized copy."
    is_original = all(found == expected for found, expected in odd if expected)
    if is_original and (not whole or here == {PNG: 1, CMYK: len(IMAGENET_CMYK)}):
        return f"{files}, as in the original."
    return f"{files}; the original has 1 and {len(IMAGENET_CMYK)}, so that this is a re-encoded copy."


def _against(split: str, count: int, whole: int) -> str:
    """Return a split's number of images next to ImageNet's."""
    if count == whole:
        return f"{split} has its {whole:,} images"
    off = f"{whole - count:,} missing" if count < whole else f"{count - whole:,} too many"
    return f"{split} has {count:,} of {whole:,} images ({off})"
