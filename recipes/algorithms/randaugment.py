"""RandAugment: random image operations, in the loader."""

from __future__ import annotations

from recipes.algorithms._base import RecipeAlgorithm
from recipes.augmentations import RandomOperations


class RandAugment(RecipeAlgorithm):
    """Applies `depth` random operations to every image (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719).

    Runs in the loader, after crop and flip; stock Composer patches the data set's transforms at FIT_START, which fails
    on some data sets and silently does nothing on others. The operations are Composer's, on tensors. As published, each
    one draws its severity up to the maximum, from numpy's global generator, which our data sets seed per sample.

    Args:
        severity: maximum strength of an operation, 0 to 10. Published for hot: 10 (2022), later 9.
        depth: number of operations, at least 1. Published for hot: 1.
        augmentation_set: "all", "safe" (without those of ImageNet-C) or "original" (as in the first code).
    """

    BOUNDS = {"severity": "from 0 to 10", "depth": "at least 1", "augmentation_set": ("all", "safe", "original")}
    PER_IMAGE = "True"

    def __init__(self, severity: int = 9, depth: int = 2, augmentation_set: str = "all") -> None:
        self.severity = severity
        self.depth = depth
        self.augmentation_set = augmentation_set
        self.image_transform = RandomOperations(severity, depth, augmentation_set)
