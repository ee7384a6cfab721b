"""TrivialAugmentWide and timm's RandAugment: the pixels of their sources' own classes, for the same draws."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms import TrivialAugmentWide as Stock

from loaders.seeding import seeded
from recipes.algorithms.timm_randaugment import TimmRandAugment
from recipes.algorithms.trivial_augment_wide import TrivialAugmentWide
from recipes.pil_augmentations import OPERATIONS, TimmOperations


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photograph that is not square: uint8 [H, W, 3]."""
    return np.ascontiguousarray(load_sample_image("flower.jpg")[60:173, 150:281])


def compared(ours, stock, photo: np.ndarray, seeds: range) -> int:
    """Check that both return the same image for each seed; return how many of them differ from the photograph."""
    ours, changed = pickle.loads(pickle.dumps(ours)), 0
    for index in seeds:
        with seeded(5, 0, index):
            found = ours(torch.from_numpy(photo).permute(2, 0, 1))
        with seeded(5, 0, index):
            wanted = np.asarray(stock(Image.fromarray(photo)))
        assert found.dtype == torch.uint8 and np.array_equal(found.permute(1, 2, 0).numpy(), wanted), index
        changed += not np.array_equal(wanted, photo)
    return changed


def test_trivial_augment_is_torchvisions(photo: np.ndarray) -> None:
    stock = Stock(interpolation=InterpolationMode.BILINEAR)
    assert compared(TrivialAugmentWide().image_transform, stock, photo, range(60)) > 45


@pytest.mark.parametrize(("magnitude", "std"), [(7, 0.5), (6, 0.5), (9, 3), (4, 0)])
def test_randaugment_is_timms(magnitude: int, std: float, photo: np.ndarray) -> None:
    hparams = {"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC}
    stock = rand_augment_transform(f"rand-m{magnitude}-mstd{std}-inc1", hparams)
    ours = TimmRandAugment(magnitude, std).image_transform
    assert compared(ours, stock, photo, range(60)) > 30
    every = rand_augment_transform(f"rand-m{magnitude}-mstd{std}-inc1-n4-p1", hparams)
    assert compared(TimmRandAugment(magnitude, std, 4, 1).image_transform, every, photo, range(60, 90)) == 30


def test_the_operations_are_timms_in_its_order() -> None:
    named = [op.name.replace("Increasing", "").replace("Rel", "") for op in rand_augment_transform("rand-inc1").ops]
    assert named == list(OPERATIONS)


def test_each_operation_is_applied_with_its_probability(photo: np.ndarray) -> None:
    image, unchanged = Image.fromarray(photo), 0
    np.random.seed(1), random.seed(1)
    for _ in range(400):
        unchanged += TimmOperations(7, 0.5, 1, 0.5)(image) is image
    assert unchanged == pytest.approx(200, abs=40)
