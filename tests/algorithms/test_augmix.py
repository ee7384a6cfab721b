"""AugMix: Composer's distribution, given to the loader."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from composer.algorithms import AugMix as StockAugMix
from composer.algorithms.augmix import AugmentAndMixTransform
from omegaconf import OmegaConf
from PIL import Image

from recipes.algorithms.augmix import AugMix
from tests.algorithms.tiny import trainer
from training import build


@pytest.mark.parametrize("depth", [-1, 2])
def test_pictures_are_composers_for_the_same_seed(depth: int) -> None:
    """The same draws from numpy's generator, after pickling as well."""
    pixels = np.random.randint(0, 255, (24, 24, 3), dtype=np.uint8)
    ours = pickle.loads(pickle.dumps(AugMix(3, depth).image_transform))
    stock = AugmentAndMixTransform(3, depth)
    results = set()
    for seed in range(10):
        np.random.seed(seed)
        found = ours(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        np.random.seed(seed)
        expected = np.asarray(stock(Image.fromarray(pixels)))
        assert np.abs(found.astype(int) - expected).mean() < 0.5  # as RandAugment's operations
        results.add(found.tobytes())
    assert len(results) == 10


def test_any_data_set_will_do() -> None:
    """Stock demands torchvision's class of data sets at FIT_START; ours has acted once the loader has its transform."""
    with pytest.raises(TypeError, match="must be a"):
        trainer([StockAugMix()], duration="1ba").fit()
    (algorithm,) = build.algorithms(OmegaConf.create({"algorithms": {"augmix": {}}}))
    assert isinstance(algorithm, AugMix)
    trainer([algorithm], duration="1ba").fit()


@pytest.mark.parametrize("arguments", [{"severity": 11}, {"width": 0}, {"alpha": 0}, {"augmentation_set": "some"}])
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has to be"):
        AugMix(**arguments)
