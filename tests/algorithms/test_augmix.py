"""AugMix: Composer's distribution, applied in the loader."""

from __future__ import annotations

import pytest
from composer.algorithms import AugMix as StockAugMix
from composer.algorithms.augmix import AugmentAndMixTransform

from config.schema import Config
from recipes.algorithms.augmix import AugMix
from tests.algorithms.tiny import assert_same_images, trainer
from training import build


@pytest.mark.parametrize("depth", [-1, 2])
def test_images_are_composers_for_the_same_seed(depth: int) -> None:
    """Same draws from numpy's generator, also after pickling."""
    assert_same_images(AugMix(3, depth).image_transform, AugmentAndMixTransform(3, depth))


@pytest.mark.slow
def test_any_dataset_class_works() -> None:
    """Composer's requires torchvision's class of data sets at FIT_START; ours is part of the loader's transforms."""
    with pytest.raises(TypeError, match="must be a"):
        trainer([StockAugMix()], duration="1ba").fit()
    (algorithm,) = build.algorithms(Config(algorithms={"augmix": {}}))
    assert isinstance(algorithm, AugMix)
    trainer([algorithm], duration="1ba").fit()
