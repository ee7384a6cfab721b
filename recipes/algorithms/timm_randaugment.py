"""TimmRandAugment: timm's variant of RandAugment, in the loader."""

from __future__ import annotations

from recipes.algorithms._base import RecipeAlgorithm
from recipes.pil_augmentations import OnPil, TimmOperations


class TimmRandAugment(RecipeAlgorithm):
    """Applies random operations to every image, as timm's `rand-m7-mstd0.5-inc1` does (its data/auto_augment.py).

    Unlike RandAugment, each of the `num_ops` operations, drawn from 15 with replacement, is applied with probability
    `prob` at a strength that is close to `magnitude`, and they include Invert and SolarizeAdd. Runs in the loader after
    crop and flip, on PIL images; bicubic, filled with ImageNet's mean color.

    Args:
        magnitude: mean strength, 0 to 10. Published: 7 (rsb_a1, rsb_a2), 6 (rsb_a3).
        std: standard deviation of the strength, which is cut to 0 to 10. Published: .5.
        num_ops: number of operations drawn, at least 1. Published: 2.
        prob: probability that a drawn operation is applied. Published: .5, timm's default.
    """

    BOUNDS = {"magnitude": "from 0 to 10", "std": "at least 0", "num_ops": "at least 1", "prob": "from 0 to 1"}
    PER_IMAGE = "True"

    def __init__(self, magnitude: float = 7, std: float = 0.5, num_ops: int = 2, prob: float = 0.5) -> None:
        self.magnitude = magnitude
        self.std = std
        self.num_ops = num_ops
        self.prob = prob
        self.image_transform = OnPil(TimmOperations(magnitude, std, num_ops, prob))
