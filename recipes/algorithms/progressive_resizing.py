"""ProgressiveResizing: small images first, the full crop size at the end, with few exact sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor

from recipes.algorithms._base import Length, RecipeAlgorithm, in_layout_of, seeded_generator
from recipes.schedules import progressive_size


class ProgressiveResizing(RecipeAlgorithm):
    """Increases the size of training images over the run, in the loader or else on the device.

    From fast.ai (https://github.com/fastai/fastbook, chapter 7). In mode 'resize' the loader resizes each crop once,
    antialiased, to the size of its batch (`size_in_loader`). Full-size images, as from another program's loader, are
    resized at Event.BEFORE_FORWARD by nearest neighbor, as in the published code, although its documentation says
    bilinear. Unlike there, sizes are exact and few (recipes.schedules.progressive_size).

    Args:
        mode: 'resize', or 'crop' for a random crop, the same for all microbatches of a batch.
        initial_scale: first size / the loader's crop size, above 0, at most 1. Published: .5 (mild), .6 (hot).
        finetune_fraction: last fraction of the run, at full size. Published: .2.
        delay_fraction: first fraction of the run, at the first size. Published: .4 (mild and medium), .2 (hot).
        size_increment: sizes are multiples of this, in pixels.
        resize_targets: resize targets of shape (N, H, W) or (N, C, H, W) too.
        max_sizes: maximum number of sizes, at least 2; each costs a compilation or a cuDNN search.
        sizes: these sizes, one after the other, in place of all the arguments above but mode and resize_targets.
        switches: times at which the next of `sizes` begins, in ep or dur; scale_schedule_ratio scales them.
    """

    events = (Event.BATCH_START, Event.BEFORE_FORWARD)
    BOUNDS = {
        "mode": ("resize", "crop"),
        "initial_scale": "a fraction, more than 0 and at most 1",
        "finetune_fraction": "a fraction, from 0 to 1",
        "delay_fraction": "a fraction, from 0 to 1",
        "size_increment": "at least 1 pixel",
        "max_sizes": "at least 2",
        "sizes": "at least 1 pixel",
        "switches": "more than 0, in ep or dur",
    }
    RULES = {
        "delay_fraction + finetune_fraction <= 1": (
            "delay_fraction {delay_fraction:g} and finetune_fraction {finetune_fraction:g} add up to more than 1; "
            "their sum must be at most 1"
        ),
        "not 0 < initial_scale * config.train_dataset.crop_size < 1": (
            "initial_scale: {initial_scale:g} of train_dataset.crop_size {config.train_dataset.crop_size} is less than "
            "one pixel"
        ),
        "len(sizes or [0]) == len(switches or []) + 1": (
            "sizes: {sizes} given, but switches must be a list with one time between each two sizes"
        ),
        "max(sizes or [0]) <= config.train_dataset.crop_size": (
            "sizes: {sizes} given, but no size may exceed train_dataset.crop_size {config.train_dataset.crop_size}"
        ),
    }
    RESIZES = True
    IMAGE_SIZE = "recipes.schedules:progressive_size"
    NO_LR_FIND = "changes the image size, and a learning rate is found at a single size"

    def __init__(
        self,
        mode: str = "resize",
        initial_scale: float = 0.5,
        finetune_fraction: float = 0.2,
        delay_fraction: float = 0.5,
        size_increment: int = 4,
        resize_targets: bool = False,
        max_sizes: int = 8,
        sizes: list[int] | None = None,
        switches: list[str] | None = None,
    ) -> None:
        self.mode = mode
        self.initial_scale = initial_scale
        self.finetune_fraction = finetune_fraction
        self.delay_fraction = delay_fraction
        self.size_increment = size_increment
        self.resize_targets = resize_targets
        self.max_sizes = len(sizes) if sizes else max_sizes
        self.sizes = sizes
        self.switches = switches
        self.size = 0  # the current one, in pixels

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Determine the size of this batch, or shrink a microbatch to it."""
        inputs = state.batch_get_item(0)
        if event == Event.BATCH_START:
            elapsed = state.get_elapsed_duration()
            assert elapsed is not None
            # Another program's loader sets no crop_size. Use its width here: before the forward pass, colout may have
            # removed columns.
            self.size = self._size_at(elapsed.value, self.crop_size or inputs.shape[-1])
            logger.log_metrics({"progressive_resizing/size": self.size})
            return
        if self.size >= inputs.shape[-1]:
            return
        corner = seeded_generator(state, "progressive_resizing").random(2)
        state.batch_set_item(0, self._shrink(inputs, corner))
        if self.resize_targets:
            state.batch_set_item(1, self._shrink_targets(state.batch_get_item(1), corner))

    def shortfall(self, length: Length) -> tuple[str, dict[str, Any] | None] | None:
        """Warn if the last images are smaller than the full size, at which the network is evaluated."""
        full = self.crop_size or 0
        if not full or (size := self._size_at(length.last, full)) >= full:
            return None
        share = math.ceil(100 * (1 - length.last)) / 100
        fits = share + self.delay_fraction <= 1
        return f"the images reach {size} px, never {full} px", {"finetune_fraction": share} if fits else None

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """Return the image side that this algorithm needs as input after a fraction `elapsed` of the run."""
        return self._size_at(elapsed, crop_size) if self.mode == "resize" else crop_size

    def _size_at(self, elapsed: float, crop_size: int) -> int:
        if self.held is not None:
            return self.held
        shape = (self.initial_scale, self.delay_fraction, self.finetune_fraction, self.size_increment, self.max_sizes)
        return progressive_size(elapsed, crop_size, *shape, self.sizes, self.switches, self.epochs)

    def _shrink(self, images: Tensor, corner: np.ndarray) -> Tensor:
        """Shrink (N, C, H, W) to width `size`; `corner` is the position of a crop, two numbers from 0 to 1."""
        height, width = images.shape[-2:]
        new_height, new_width = round(height * self.size / width), self.size
        if self.mode == "resize":
            # size=, not scale_factor=, which computes 119 from 176 * (120 / 176).
            return in_layout_of(images, F.interpolate(images, size=(new_height, new_width), mode="nearest"))
        top, left = int(corner[0] * (height - new_height + 1)), int(corner[1] * (width - new_width + 1))
        return in_layout_of(images, images[..., top : top + new_height, left : left + new_width])

    def _shrink_targets(self, targets: Tensor, corner: np.ndarray) -> Tensor:
        """Shrink class indices (N, H, W) or values (N, C, H, W), keeping their type."""
        values = targets.to(torch.float32)
        shrunk = self._shrink(values if values.ndim == 4 else values.unsqueeze(1), corner)
        return (shrunk if values.ndim == 4 else shrunk.squeeze(1)).to(targets.dtype)
