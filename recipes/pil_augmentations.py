"""Augmentations that are published on PIL images: torchvision's and timm's, on uint8 tensors [3, H, W].

Their pixels are PIL's, because they are made by PIL. The draws are those of the sources, from the global generators,
which our data sets seed per sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import TrivialAugmentWide as Trivial

_FILL = (124, 116, 104)  # the mean color of ImageNet
_AFFINE: dict[str, Any] = {"resample": Image.Resampling.BICUBIC, "fillcolor": _FILL}


class OnPil:
    """Applies a transform of PIL images to a tensor, uint8 [3, H, W] -> uint8 [3, H, W]."""

    def __init__(self, transform: Callable[[Image.Image], Image.Image]) -> None:
        self.transform = transform

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the transformed image."""
        image = self.transform(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def trivial_augment() -> OnPil:
    """Return torchvision's TrivialAugmentWide; interpolation as in its references, where fill is black."""
    return OnPil(Trivial(interpolation=InterpolationMode.BILINEAR))


def _signed(value: float) -> float:
    return -value if random.random() > 0.5 else value


def _enhanced(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, level: kind(image).enhance(max(0.1, 1 + _signed(0.9 * level)))


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, **_AFFINE)


def _solarize_add(image: Image.Image, level: float) -> Image.Image:
    """Brighten the dark half of the values."""
    more = min(128, int(110 * level))
    return image.point([min(255, value + more) if value < 128 else value for value in range(256)] * 3)


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Invert": lambda image, _: ImageOps.invert(image),
    "Rotate": lambda image, level: image.rotate(_signed(30 * level), **_AFFINE),
    "Posterize": lambda image, level: ImageOps.posterize(image, 4 - int(4 * level)),
    "Solarize": lambda image, level: ImageOps.solarize(image, 256 - int(256 * level)),
    "SolarizeAdd": _solarize_add,
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda image, level: _moved(image, 1, _signed(0.3 * level), 0, 0, 1, 0),
    "ShearY": lambda image, level: _moved(image, 1, 0, 0, _signed(0.3 * level), 1, 0),
    "TranslateX": lambda image, level: _moved(image, 1, 0, _signed(0.45 * level) * image.width, 0, 1, 0),
    "TranslateY": lambda image, level: _moved(image, 1, 0, 0, 0, 1, _signed(0.45 * level) * image.height),
}
"""timm's operations that grow with the level, 0 to 1, in its order."""


class TimmOperations:
    """Applies `num_ops` random operations to a PIL image; see TimmRandAugment."""

    def __init__(self, magnitude: float, std: float, num_ops: int, prob: float) -> None:
        self.magnitude, self.std, self.num_ops, self.prob = magnitude, std, num_ops, prob

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the transformed image."""
        names = list(OPERATIONS)
        for index in np.random.randint(0, len(names), self.num_ops):
            if self.prob < 1 and random.random() > self.prob:
                continue
            magnitude = random.gauss(self.magnitude, self.std) if self.std else self.magnitude
            image = OPERATIONS[names[index]](image, max(0.0, min(magnitude, 10.0)) / 10)
        return image
