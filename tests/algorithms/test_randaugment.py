"""RandAugment: Composer's distribution, applied in the loader."""

from __future__ import annotations

import pytest
from composer.algorithms import RandAugment as StockRandAugment
from composer.algorithms.randaugment import RandAugmentTransform

from recipes.algorithms.randaugment import RandAugment
from tests.algorithms.tiny import assert_same_images, trainer


def test_images_are_composers_for_the_same_seed():
    """Same draws from numpy's generator, also after pickling."""
    assert_same_images(RandAugment(9, 2).image_transform, RandAugmentTransform(9, 2, "all"))


@pytest.mark.slow
def test_any_dataset_class_works():
    """Composer's requires torchvision's class of data sets at FIT_START; ours needs no data set."""
    with pytest.raises(TypeError, match="must be a"):
        trainer([StockRandAugment()], duration="1ba").fit()
    trainer([RandAugment()], duration="1ba").fit()
