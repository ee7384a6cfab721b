"""RandAugment: random image operations, given to the loader before it is built."""

from __future__ import annotations

from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm
from recipes.augmentations import RandomOperations


class RandAugment(RecipeAlgorithm):
    """Applies `depth` random operations to every image (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719).

    It acts on no event: `image_transform` (uint8 [3, H, W] in and out) goes into the loader's transforms after crop
    and flip. Stock Composer patches a data set's transforms at FIT_START, which fails on some data sets and silently
    does nothing on others. The operations are Composer's, on tensors; as published, each draws its own severity up to
    the maximum, from numpy's global generator, which our data sets seed per sample.

    Args:
        severity: the greatest strength of an operation, 0 to 10. Published for hot: 10 (paper of 2022), later 9.
        depth: how many operations, at least 1. Published for hot: 1.
        augmentation_set: "all", "safe" (none of those in ImageNet-C) or "original" (as in the first code).
    """

    BOUNDS = {"severity": "from 0 to 10", "depth": "at least 1", "augmentation_set": ("all", "safe", "original")}
    PER_IMAGE = "True"

    def __init__(self, severity: int = 9, depth: int = 2, augmentation_set: str = "all") -> None:
        self.severity = severity
        self.depth = depth
        self.augmentation_set = augmentation_set
        self.image_transform = RandomOperations(severity, depth, augmentation_set)

    def match(self, event: Event, state: State) -> bool:
        """Never: the loader applies `image_transform`."""
        return False

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Nothing: the loader applies `image_transform`."""
