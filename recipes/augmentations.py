"""RandAugment's operations on uint8 tensors, several times faster than PIL.

An image is uint8 [3, H, W]. The operations and their draws from numpy's global generator equal those of Composer's
RandAugment (composer.algorithms.utils.augmentation_primitives), which the published recipes used. The pixels are PIL's;
a weighted sum may differ by 1 of 255, because it is taken in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[[Tensor, float], Tensor]

_GREY = (19595, 38470, 7471)  # of 65536: ITU-R 601-2 luma, in PIL's fixed point


def drawn(severity: float) -> float:
    """Draw a strength between 0.1 and `severity`, which is at most 10."""
    return float(np.random.uniform(0.1, severity))


def drawn_factor(severity: float) -> float:
    """Draw a factor from 1 - 0.09 * severity to severity, with median 1 (no change)."""
    if np.random.uniform() > 0.5:
        return float(np.random.uniform(1, severity))
    return float(np.random.uniform(1 - 0.09 * severity, 1))


def either_sign(value: float) -> float:
    """Return the value or its negative at random."""
    return -value if np.random.uniform() > 0.5 else value


def look_up(pixels: Tensor, tables: np.ndarray) -> Tensor:
    """Replace every value of channel c by tables[c][value]; tables: uint8 [3, 256]."""
    channels = [np.take(table, channel.numpy()) for table, channel in zip(tables, pixels, strict=True)]
    return torch.from_numpy(np.stack(channels, axis=-1)).permute(2, 0, 1)


def autocontrast(pixels: Tensor, severity: float) -> Tensor:  # noqa: ARG001
    """Stretch each channel to the whole range from 0 to 255."""
    tables = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    for channel, table in zip(pixels, tables, strict=True):
        low, high = (int(value) for value in channel.aminmax())
        if high > low:
            scale = 255.0 / (high - low)
            table[:] = np.clip(np.arange(256) * scale - low * scale, 0, 255).astype(np.uint8)
    return look_up(pixels, tables)


def equalize(pixels: Tensor, severity: float) -> Tensor:  # noqa: ARG001
    """Give each channel a flat histogram."""
    tables = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    for channel, table in zip(pixels, tables, strict=True):
        counts = np.bincount(channel.numpy().ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        if step:
            below = np.concatenate([[0], np.cumsum(counts)[:-1]])
            table[:] = np.minimum((step // 2 + below) // step, 255)
    return look_up(pixels, tables)


def posterize(pixels: Tensor, severity: float) -> Tensor:
    """Keep only the highest bits, from 4 down to none."""
    bits = 4 - int(drawn(severity) * 0.4)
    return pixels & (256 - 2 ** (8 - bits))


def solarize(pixels: Tensor, severity: float) -> Tensor:
    """Invert the values above a threshold."""
    threshold = 256 - int(drawn(severity) * 25.6)
    if threshold > 255:  # no byte is above it, and 256 would wrap to 0
        return pixels
    return pixels ^ (pixels >= threshold).to(torch.uint8).mul_(255)


def affine(pixels: Tensor, matrix: tuple[float, ...]) -> Tensor:
    """Sample each pixel from x' = a x + b y + c, y' = d x + e y + f; bilinear, black outside the image."""
    height, width = pixels.shape[1:]
    a, b, c, d, e, f = matrix
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    source_x, source_y = a * x + (b * y + c), d * x + (e * y + f)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    grid = torch.stack([source_x * (2 / width) - 1, source_y * (2 / height) - 1], dim=-1)
    values = F.grid_sample(
        pixels[None].float().contiguous(), grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    # PIL truncates a sum in 64 bits; in 32 bits, 196 may be 195.9999.
    return (values * inside).add_(1e-3).to(torch.uint8)


def rotate(pixels: Tensor, severity: float) -> Tensor:
    """Rotate around the center by up to 30 degrees."""
    degrees = either_sign(int(drawn(severity) * 3))
    if degrees == 0:
        return pixels
    angle, (height, width) = -math.radians(degrees), pixels.shape[1:]
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return affine(pixels, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))


def shear_x(pixels: Tensor, severity: float) -> Tensor:
    """Shift each row by up to 0.3 times its y coordinate."""
    return affine(pixels, (1, either_sign(drawn(severity) * 0.03), 0, 0, 1, 0))


def shear_y(pixels: Tensor, severity: float) -> Tensor:
    """Shift each column by up to 0.3 times its x coordinate."""
    return affine(pixels, (1, 0, 0, either_sign(drawn(severity) * 0.03), 1, 0))


def translate(pixels: Tensor, shift: int, dim: int) -> Tensor:
    """Shift by `shift` pixels along a dimension, filling with black."""
    size, result = pixels.shape[dim], torch.zeros_like(pixels)
    kept = size - abs(shift)
    result.narrow(dim, max(0, -shift), kept).copy_(pixels.narrow(dim, max(0, shift), kept))
    return result


def translate_x(pixels: Tensor, severity: float) -> Tensor:
    """Shift horizontally by up to a third of the width."""
    return translate(pixels, int(either_sign(int(drawn(severity) * pixels.shape[2] / 30))), dim=2)


def translate_y(pixels: Tensor, severity: float) -> Tensor:
    """Shift vertically by up to a third of the height."""
    return translate(pixels, int(either_sign(int(drawn(severity) * pixels.shape[1] / 30))), dim=1)


def grey(pixels: Tensor) -> Tensor:
    """Return the luma as int32 [H, W]."""
    red, green, blue = pixels.to(torch.int32)
    return (red * _GREY[0] + green * _GREY[1] + blue * _GREY[2] + 0x8000) >> 16


def blend(base: Tensor | float, pixels: Tensor, factor: float) -> Tensor:
    """Interpolate from `base` (factor 0) to the image (1), or extrapolate, clipped to 0 to 255."""
    return (base + factor * (pixels.to(torch.float32) - base)).clamp_(0, 255).to(torch.uint8)


def saturate(pixels: Tensor, factor: float) -> Tensor:
    """Reduce (below 1) or increase the color saturation."""
    return blend(grey(pixels).to(torch.float32), pixels, factor)


def spread(pixels: Tensor, factor: float) -> Tensor:
    """Reduce (below 1) or increase the contrast around the mean luma."""
    return blend(float(int(grey(pixels).to(torch.float64).mean() + 0.5)), pixels, factor)


def brighten(pixels: Tensor, factor: float) -> Tensor:
    """Darken (below 1) or brighten."""
    return blend(0.0, pixels, factor)


def sharpen(pixels: Tensor, factor: float) -> Tensor:
    """Smooth (below 1) or sharpen all but the outermost pixels."""
    if min(pixels.shape[1:]) < 3:
        return pixels
    values = pixels.to(torch.float32).contiguous()
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    smooth = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * values[:, 1:-1, 1:-1]
    base = values.clone()
    base[:, 1:-1, 1:-1] = (smooth / 13 + 0.5).floor_()
    return blend(base, pixels, factor)


def color(pixels: Tensor, severity: float) -> Tensor:
    """Apply `saturate` with a random factor."""
    return saturate(pixels, drawn_factor(severity))


def contrast(pixels: Tensor, severity: float) -> Tensor:
    """Apply `spread` with a random factor."""
    return spread(pixels, drawn_factor(severity))


def brightness(pixels: Tensor, severity: float) -> Tensor:
    """Apply `brighten` with a random factor, times 0.75 if it is above 1."""
    factor = drawn_factor(severity)
    return brighten(pixels, factor * 0.75 if factor > 1 else factor)


def sharpness(pixels: Tensor, severity: float) -> Tensor:
    """Apply `sharpen` with a random factor."""
    return sharpen(pixels, drawn_factor(severity))


def _original(change: Callable[[Tensor, float], Tensor]) -> Operation:
    """Return an operation with a factor drawn as in AugMix's original code: from 0.118 to 0.18 * severity + 0.1."""
    return lambda pixels, severity: change(pixels, drawn(severity) * 0.18 + 0.1)


_SAFE = (autocontrast, equalize, posterize, rotate, solarize, shear_x, shear_y, translate_x, translate_y)
OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "all": (*_SAFE, color, contrast, brightness, sharpness),
    "safe": _SAFE,  # without those in ImageNet-C and CIFAR10-C
    "original": (*_SAFE, *map(_original, (saturate, spread, brighten, sharpen))),
}


class RandomOperations:
    """Applies `depth` random operations to an image, uint8 [3, H, W] -> uint8 [3, H, W]; see RandAugment."""

    def __init__(self, severity: float, depth: int, operations: str) -> None:
        self.severity, self.depth, self.operations = severity, depth, operations

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the transformed image."""
        choice = OPERATIONS[self.operations]
        for _ in range(self.depth):
            pixels = choice[np.random.randint(len(choice))](pixels, self.severity)
        return pixels


class MixedChains:
    """Blends an image, uint8 [3, H, W] -> uint8 [3, H, W], with chains of random operations; see AugMix."""

    def __init__(self, severity: float, depth: int, width: int, alpha: float, operations: str) -> None:
        self.severity, self.depth, self.width, self.alpha, self.operations = severity, depth, width, alpha, operations

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the blended image."""
        weights = np.random.dirichlet([self.alpha] * self.width).astype(np.float32)
        share = float(np.float32(np.random.beta(self.alpha, self.alpha)))
        combined = torch.zeros(pixels.shape)
        for weight in weights:
            depth = self.depth if self.depth > 0 else np.random.randint(1, 4)
            chain = RandomOperations(self.severity, depth, self.operations)
            combined += float(weight) * chain(pixels)
        return ((1 - share) * pixels + share * combined).to(torch.uint8)
