"""RandAugment: Composer's distribution, given to the loader."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from composer.algorithms import RandAugment as StockRandAugment
from composer.algorithms.randaugment import RandAugmentTransform
from PIL import Image

from recipes.algorithms.randaugment import RandAugment
from tests.algorithms.tiny import trainer


def test_pictures_are_composers_for_the_same_seed():
    """The same draws from numpy's generator, after pickling as well."""
    pixels = np.random.randint(0, 255, (24, 24, 3), dtype=np.uint8)
    ours = pickle.loads(pickle.dumps(RandAugment(9, 2).image_transform))
    stock = RandAugmentTransform(9, 2, "all")
    results = set()
    for seed in range(10):
        np.random.seed(seed)
        found = ours(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        np.random.seed(seed)
        expected = np.asarray(stock(Image.fromarray(pixels)))
        # A difference of 1 in the first operation may be multiplied by the second.
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        results.add(found.tobytes())
    assert len(results) == 10


def test_any_data_set_will_do():
    """Stock demands torchvision's class of data sets at FIT_START; ours leaves data sets alone."""
    with pytest.raises(TypeError, match="must be a"):
        trainer([StockRandAugment()], duration="1ba").fit()
    trainer([RandAugment()], duration="1ba").fit()


@pytest.mark.parametrize("arguments", [{"severity": 11}, {"severity": -1}, {"depth": 0}, {"augmentation_set": "some"}])
def test_arguments_are_checked(arguments):
    """A sentence for each impossible argument; stock takes a depth of 0."""
    with pytest.raises(ValueError, match="has to be"):
        RandAugment(**arguments)
