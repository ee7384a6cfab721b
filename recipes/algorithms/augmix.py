"""AugMix: blend images with random chains of image operations, in the loader."""

from __future__ import annotations

from recipes.algorithms._base import RecipeAlgorithm
from recipes.augmentations import MixedChains


class AugMix(RecipeAlgorithm):
    """Blends each image with `width` chains of random operations (Hendrycks et al. 2020, arXiv 1912.02781).

    Runs in the loader, after crop and flip; stock Composer patches the data set's transforms at FIT_START, which only
    torchvision's data sets have. Operations and draws are Composer's, from numpy's global generator, which our data
    sets seed per sample. As in Composer, the paper's consistency loss is missing.

    Args:
        severity: maximum strength of an operation, 0 to 10. Published: 3.
        depth: operations per chain; below 1: 1 to 3 at random. Published: -1.
        width: number of chains, at least 1. Published: 3.
        alpha: parameter of the Dirichlet distribution of the chains' weights and of the Beta distribution of the
            image's weight, more than 0. Published: 1.
        augmentation_set: "all", "safe" (without those of ImageNet-C) or "original" (as in the first code).
    """

    BOUNDS = {
        "severity": "from 0 to 10",
        "width": "at least 1",
        "alpha": "more than 0",
        "augmentation_set": ("all", "safe", "original"),
    }
    PER_IMAGE = "True"

    def __init__(
        self, severity: int = 3, depth: int = -1, width: int = 3, alpha: float = 1.0, augmentation_set: str = "all"
    ) -> None:
        self.severity = severity
        self.depth = depth
        self.width = width
        self.alpha = alpha
        self.augmentation_set = augmentation_set
        self.image_transform = MixedChains(severity, depth, width, alpha, augmentation_set)
