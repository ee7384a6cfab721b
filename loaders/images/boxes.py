"""Crop boxes: random ones as torchvision draws them, and central squares."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from loaders.images import native

ASPECT_RATIO = (3 / 4, 4 / 3)  # of a random crop, width over height
_LOG_ASPECT = torch.log(torch.tensor(ASPECT_RATIO)).tolist()
_TRIES = 10
# Relative error of a side computed in float64 instead of torch's float32: at most 2**-21.9, with or without fused
# multiply-add, if exp is off by 2 units in the last place.
_MARGIN = 2.0**-20
_ONE_WORD = 2**28  # torch draws integers below this from one 32-bit word


class Crop(NamedTuple):
    """A box in pixels of the (resized) image, and whether to mirror its contents."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width of an image resized to a short side of `size` pixels; the long side is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def random_box(
    height: int, width: int, smallest: float, generator: torch.Generator | None
) -> tuple[int, int, int, int]:
    """Draw a box (top, left, height, width) of at least `smallest` of the area; a central one if ten do not fit.

    Same as torchvision's RandomResizedCrop.get_params, which only supports the global generator.
    """
    for _ in range(_TRIES):
        area = height * width * torch.empty(1).uniform_(smallest, 1.0, generator=generator).item()
        aspect = torch.exp(torch.empty(1).uniform_(*_LOG_ASPECT, generator=generator)).item()
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = (
                int(torch.randint(0, whole - part + 1, (1,), generator=generator))
                for whole, part in ((height, rows), (width, columns))
            )
            return top, left, rows, columns
    rows, columns = (int(length) for length in _largest_box(height, width))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _largest_box(height: int | np.ndarray, width: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return height and width of the box that is used if none fits: as much of the image as the aspects allow."""
    narrowest, widest = ASPECT_RATIO
    return np.minimum(height, np.rint(width / narrowest)), np.minimum(width, np.rint(height * widest))


def random_crop(height: int, width: int, smallest: float, hflip: bool, generator: torch.Generator | None) -> Crop:
    """Draw a box as `random_box` does, then, if `hflip`, whether to mirror it."""
    box = random_box(height, width, smallest, generator)
    return Crop(*box, flip=hflip and bool(torch.rand(1, generator=generator) < 0.5))


def draw_boxes(
    heights: np.ndarray, widths: np.ndarray, seeds: Sequence[int], smallest: float, hflip: bool
) -> np.ndarray:
    """Draw the random crops of a batch: the same as `random_crop` with a generator of each seed, but all at once.

    Args:
        heights, widths: of the images in pixels, integers [B].
        seeds: one per image, 0 to 2**63 - 1.
        smallest, hflip: as for `random_crop`.

    Returns:
        int32 [B, 5]: top, left, height, width, and 1 if mirrored.
    """
    if native.available() and _agrees_with_torch():
        boxes, certain = _draw_together(heights, widths, seeds, smallest, hflip)
    else:
        boxes, certain = np.zeros((len(seeds), 5), np.int32), np.zeros(len(seeds), bool)
    generator = torch.Generator()
    for n in np.flatnonzero(~certain).tolist():
        generator.manual_seed(seeds[n])
        boxes[n] = random_crop(int(heights[n]), int(widths[n]), smallest, hflip, generator)
    return boxes


def _draw_together(
    heights: np.ndarray, widths: np.ndarray, seeds: Sequence[int], smallest: float, hflip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the crops [B, 5], and which are certain: those that no rounding error can change.

    The others, about one in 500 images of ImageNet's size, are undefined.
    """
    heights, widths = (lengths.astype(np.int64)[:, None] for lengths in (heights, widths))
    words = native.random_words(seeds, 2 * _TRIES + 3)
    fractions = (words[:, : 2 * _TRIES] & 0xFFFFFF) * 2.0**-24
    area = heights * widths * (smallest + (1.0 - smallest) * fractions[:, ::2])
    shortest, longest = _LOG_ASPECT
    aspect = np.exp(shortest + (longest - shortest) * fractions[:, 1::2])
    sides = np.sqrt([area / aspect, area * aspect])  # [2, B, tries]: height, width
    rounded = np.rint(sides)
    ambiguous = (np.abs(sides - rounded) >= 0.5 - _MARGIN * sides).any(axis=0)
    whole = np.stack([heights, widths])
    fits = ((rounded > 0) & (rounded <= whole)).all(axis=0)
    ends = fits | ambiguous
    none = ~ends.any(axis=1)
    last = ends.argmax(axis=1)  # the first try that ends the search
    images = np.arange(len(words))
    size = np.where(none, _largest_box(*whole[..., 0]), rounded[:, images, last]).astype(np.int64)
    room = np.maximum(whole[..., 0] - size + 1, 1)
    top_left = np.where(none, (room - 1) // 2, words[images, 2 * last + [[2], [3]]] % room)
    flip = (words[images, np.where(none, 2 * _TRIES, 2 * last + 4)] & 0x800000 == 0) & hflip
    certain = ~ambiguous[images, last] & (room < _ONE_WORD).all(axis=0)
    return np.vstack([top_left, size, flip]).T.astype(np.int32), certain


@functools.cache
def _agrees_with_torch() -> bool:
    """Whether `_draw_together` draws what the installed torch draws: nothing documents its random numbers."""
    seeds = [number * 0x9E3779B97F4A7C15 % 2**63 for number in range(100)]
    heights, widths = np.resize([50_000, 300, 30, 5], 100), np.resize([40_000, 500, 90, 90], 100)
    boxes, certain = _draw_together(heights, widths, seeds, 0.08, True)
    expected = [
        random_crop(height, width, 0.08, True, torch.Generator().manual_seed(seed))
        for height, width, seed in zip(heights.tolist(), widths.tolist(), seeds, strict=True)
    ]
    return bool(certain.mean() > 0.5 and np.array_equal(boxes[certain], np.array(expected)[certain]))


def central(height: int, width: int, size: int) -> Crop:
    """Return the central square of `size` pixels, as torchvision's center_crop; it may exceed a small image."""
    top, left = (
        round((length - size) / 2) if length >= size else -((size - length) // 2) for length in (height, width)
    )
    return Crop(top, left, size, size, flip=False)
