"""What an evaluation of a run or of a file gives, and ImageNet-ReaL accuracy."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.class_names import imagenet
from loaders.dataset import ImageDataset
from tools.evaluate.figures import Pass

_VAL = re.compile(r"ILSVRC2012_val_(\d{8})\b.*")  # an image of ImageNet's validation set, numbered from 1


@dataclass(frozen=True)
class Evaluated:
    """An evaluated network."""

    called: str  # for titles
    source: str  # address of its checkpoint or file
    data: str  # address of the data set
    images: ImageDataset
    classes: list[str]  # by output
    names: list[str]  # of the classes, for people
    passes: dict[int, Pass]  # by image size in pixels
    size: int  # its own

    @property
    def result(self) -> Pass:
        """The pass at its own size."""
        return self.passes[self.size]


def real_top1(evaluated: Evaluated) -> dict[str, Any]:
    """Return top-1 in percent by the reassessed labels of ImageNet's validation images, and how many images have some.

    Empty for other images or classes, and without timm, which holds the labels. Source: Beyer et al. 2020, "Are we done
    with ImageNet?", https://arxiv.org/abs/2006.07159.
    """
    label_of = {one: label for label, one in enumerate(imagenet())}
    if not all(one in label_of for one in evaluated.classes):
        return {}
    names = (Path(evaluated.images.name_of(at)).name for at in range(len(evaluated.images)))
    numbers = [int(match[1]) if (match := _VAL.fullmatch(name)) else 0 for name in names]
    labels = _real_labels() if numbers and all(numbers) else []
    if not labels or max(numbers) > len(labels):
        return {}
    predicted = [label_of[evaluated.classes[output]] for output in evaluated.result.plain.predicted.tolist()]
    right = [label in labels[n - 1] for label, n in zip(predicted, numbers, strict=True) if labels[n - 1]]
    return {"real_top1": round(100 * sum(right) / len(right), 4), "real_images": len(right)} if right else {}


def _real_labels() -> list[list[int]]:
    """Return timm's list of the labels of each image, without importing timm; empty if it is not installed."""
    timm = importlib.util.find_spec("timm")
    folder = next(iter(timm.submodule_search_locations or []), None) if timm else None
    file = Path(folder, "data", "_info", "imagenet_real_labels.json") if folder else None
    return json.loads(file.read_text()) if file and file.is_file() else []
