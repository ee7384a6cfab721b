"""RandAugment's tensor operations: Composer's draws, PIL's pixels, the histograms of torchvision's reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from composer.algorithms.utils import augmentation_sets
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from recipes import augmentations
from recipes.augmentations import OPERATIONS, drawn, drawn_factor, either_sign

PAIRS = [
    pytest.param(stock, ours, id=stock.__name__)
    for name in ("all", "original")
    for stock, ours in zip(augmentation_sets[name], OPERATIONS[name], strict=True)
    if name == "all" or "original" in stock.__name__
]


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Two photographs and a grayscale one, of odd sizes: uint8 [H, W, 3]."""
    two = [photo[30:205, 50:226] for photo in load_sample_images().images]
    grey = np.repeat(two[0].mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    return [np.ascontiguousarray(photo) for photo in (*two, grey[:97, :64])]


def as_tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)


def as_array(pixels: torch.Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).numpy()


def histogram_distance(left: np.ndarray, right: np.ndarray) -> float:
    """Fraction of pixels, 0 to 1, whose values would have to change for the two histograms to agree."""
    counts = [np.bincount(np.asarray(image).ravel(), minlength=256) for image in (left, right)]
    return float(np.abs(counts[0] - counts[1]).sum() / 2 / counts[0].sum())


def test_all_operations_are_paired() -> None:
    assert {name: len(members) for name, members in OPERATIONS.items()} == {
        name: len(members) for name, members in augmentation_sets.items()
    }


@pytest.mark.parametrize("stock, ours", PAIRS)
def test_same_draws_and_pixels_as_composer(stock, ours, photographs) -> None:
    changed = 0
    for photo in photographs:
        for seed, severity in ((0, 10), (1, 10), (2, 9), (3, 4), (4, 1), (5, 0)):
            np.random.seed(seed)
            expected = np.asarray(stock(Image.fromarray(photo), severity)).astype(int)
            drawn_then = np.random.random()
            np.random.seed(seed)
            found = ours(as_tensor(photo), severity)
            assert np.random.random() == drawn_then
            assert found.dtype == torch.uint8 and found.shape == (3, *photo.shape[:2])
            assert np.abs(as_array(found) - expected).max() <= 1
            changed += not np.array_equal(as_array(found), photo)
    assert changed


def magnitude_of(name: str, size: int) -> float:
    """Return, in torchvision's units, the magnitude that an operation is about to draw at severity 10."""
    if name == "posterize":
        return 4 - int(drawn(10) * 0.4)
    if name == "solarize":
        return 256 - int(drawn(10) * 25.6)
    if name == "rotate":
        return either_sign(int(drawn(10) * 3))
    if name.startswith("shear"):
        return either_sign(drawn(10) * 0.03)
    if name.startswith("translate"):
        return -either_sign(int(drawn(10) * size / 30))
    if name in ("autocontrast", "equalize"):
        return 0.0
    factor = drawn_factor(10)
    return (factor * 0.75 if name == "brightness" and factor > 1 else factor) - 1


@pytest.mark.parametrize("name", [operation.__name__ for operation in OPERATIONS["all"]])
def test_histograms_are_those_of_torchvisions_reference(name: str, photographs) -> None:
    reference = {"autocontrast": "AutoContrast"}.get(name, name.title().replace("_", ""))
    others = []
    for photo in photographs:
        for seed in range(4):
            np.random.seed(seed)
            magnitude = magnitude_of(name, photo.shape[1 if name.endswith("x") else 0])
            expected = _apply_op(Image.fromarray(photo), reference, magnitude, InterpolationMode.BILINEAR, None)
            np.random.seed(seed)
            found = as_array(getattr(augmentations, name)(as_tensor(photo), 10))
            assert histogram_distance(found, np.asarray(expected)) < 0.02, (seed, magnitude)
            others.append(histogram_distance(photo, found))
    assert max(others) > 0.02, "the tolerance hides the operation's effect"


def test_translation_is_by_whole_pixels() -> None:
    pixels = torch.arange(2 * 5 * 7 * 3, dtype=torch.uint8)[:105].reshape(3, 5, 7)
    moved = augmentations.translate(pixels, 3, dim=2)
    assert torch.equal(moved[:, :, :4], pixels[:, :, 3:]) and not moved[:, :, 4:].any()
    moved = augmentations.translate(pixels, -2, dim=1)
    assert torch.equal(moved[:, 2:], pixels[:, :3]) and not moved[:, :2].any()


def test_the_identity_is_exact() -> None:
    pixels = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8)
    assert torch.equal(augmentations.affine(pixels, (1, 0, 0, 0, 1, 0)), pixels)
