"""TrivialAugmentWide: one random image operation of random strength, in the loader."""

from __future__ import annotations

from recipes.algorithms._base import RecipeAlgorithm
from recipes.pil_augmentations import trivial_augment


class TrivialAugmentWide(RecipeAlgorithm):
    """Applies one of 14 operations to every image, at one of 31 strengths (Müller and Hutter 2021, arXiv 2103.10158).

    torchvision's own class, on PIL images and bilinear as in its references (`--auto-augment ta_wide`); runs in the
    loader, after crop and flip. It has no arguments. The first versions of the class sheared by another angle, and
    around the center instead of the corner.
    """

    PER_IMAGE = "True"

    def __init__(self) -> None:
        self.image_transform = trivial_augment()
