"""Crop boxes: random ones as torchvision draws them, and central squares."""

import math
from typing import NamedTuple

import torch

ASPECT_RATIO = (3 / 4, 4 / 3)  # of a random crop, width over height
_LOG_ASPECT = torch.log(torch.tensor(ASPECT_RATIO)).tolist()


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
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(smallest, 1.0, generator=generator).item()
        aspect = torch.exp(torch.empty(1).uniform_(*_LOG_ASPECT, generator=generator)).item()
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = (
                int(torch.randint(0, whole - part + 1, (1,), generator=generator))
                for whole, part in ((height, rows), (width, columns))
            )
            return top, left, rows, columns
    narrowest, widest = ASPECT_RATIO
    rows, columns = min(height, round(width / narrowest)), min(width, round(height * widest))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def central(height: int, width: int, size: int) -> Crop:
    """Return the central square of `size` pixels, as torchvision's center_crop; it may exceed a small image."""
    top, left = (
        round((length - size) / 2) if length >= size else -((size - length) // 2) for length in (height, width)
    )
    return Crop(top, left, size, size, flip=False)
