"""ProgressiveResizing: small images first, the full crop size at the end, in few exact sizes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor

from recipes.algorithms._base import RecipeAlgorithm, in_layout_of, seeded_generator
from recipes.schedules import progressive_size


class ProgressiveResizing(RecipeAlgorithm):
    """Trains at the size of this moment of the run: the loader makes such images, or the device shrinks them.

    From fast.ai (https://github.com/fastai/fastbook, chapter 7). In mode 'resize' the loader is told the size of each
    batch (`size_in_loader`) and resizes its crop to that once, antialiased. Images that come at full size all the
    same (another program's loader) are shrunk at Event.BEFORE_FORWARD by nearest neighbour: the published code never
    did anything else, although its documentation said bilinear. The published code rounded 120 px down to 119,
    left an odd size under the fine-tuning phase and used a new size every few batches; the sizes here are exact and
    few (recipes.schedules.progressive_size). `size` is the current one, in pixels. Evaluation is not touched.

    Args:
        mode: 'resize', or 'crop' for a random crop, the same for all microbatches of a batch.
        initial_scale: the first size over the loader's crop size, above 0, at most 1. Published: .5 (mild), .6 (hot).
        finetune_fraction: the last part of the run, at full size. Published: .2.
        delay_fraction: the first part, at the first size. Published: .4 (mild and medium), .2 (hot).
        size_increment: sizes are multiples of this, in pixels.
        resize_targets: treat targets of shape (N, H, W) or (N, C, H, W) in the same way.
        max_sizes: how many sizes at most, at least 2: each costs a compilation or a search of cuDNN.
    """

    BOUNDS = {
        "mode": ("resize", "crop"),
        "initial_scale": "a fraction, more than 0 and at most 1",
        "finetune_fraction": "a fraction, from 0 to 1",
        "delay_fraction": "a fraction, from 0 to 1",
        "size_increment": "at least 1 pixel",
        "max_sizes": "at least 2",
    }
    RULES = {
        "delay_fraction + finetune_fraction <= 1": (
            "delay_fraction {delay_fraction:g} and finetune_fraction {finetune_fraction:g} add up to more than the "
            "run; their sum must be at most 1"
        ),
        "not 0 < initial_scale * config.train_dataset.crop_size < 1": (
            "initial_scale: {initial_scale:g} of train_dataset.crop_size {config.train_dataset.crop_size} is less than "
            "one pixel"
        ),
    }
    IMAGE_SIZE = "recipes.schedules:progressive_size"
    NO_LR_FIND = "a rate is found at one size of images"

    def __init__(
        self,
        mode: str = "resize",
        initial_scale: float = 0.5,
        finetune_fraction: float = 0.2,
        delay_fraction: float = 0.5,
        size_increment: int = 4,
        resize_targets: bool = False,
        max_sizes: int = 8,
    ) -> None:
        self.mode = mode
        self.initial_scale = initial_scale
        self.finetune_fraction = finetune_fraction
        self.delay_fraction = delay_fraction
        self.size_increment = size_increment
        self.resize_targets = resize_targets
        self.max_sizes = max_sizes
        self.size = 0

    def match(self, event: Event, state: State) -> bool:
        """At every batch, for the size, and before every training forward pass, for the images."""
        return event in (Event.BATCH_START, Event.BEFORE_FORWARD)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Find the size of this batch, or shrink a microbatch to it."""
        inputs = state.batch_get_item(0)
        if event == Event.BATCH_START:
            # The loader's own width: by the forward pass colout may have taken columns away.
            elapsed = state.get_elapsed_duration()
            assert elapsed is not None
            # Another program's loader sets no crop_size.
            self.size = self._size_at(elapsed.value, self.crop_size or inputs.shape[-1])
            logger.log_metrics({"progressive_resizing/size": self.size})
            return
        if self.size >= inputs.shape[-1]:
            return
        corner = seeded_generator(state, "progressive_resizing").random(2)
        state.batch_set_item(0, self._shrink(inputs, corner))
        if self.resize_targets:
            state.batch_set_item(1, self._shrink_targets(state.batch_get_item(1), corner))

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """The side that images should have when they come here, after a fraction `elapsed` of the run."""
        return self._size_at(elapsed, crop_size) if self.mode == "resize" else crop_size

    def _size_at(self, elapsed: float, crop_size: int) -> int:
        if self.held is not None:
            return self.held
        return progressive_size(
            elapsed,
            crop_size,
            self.initial_scale,
            self.delay_fraction,
            self.finetune_fraction,
            self.size_increment,
            self.max_sizes,
        )

    def _shrink(self, images: Tensor, corner: np.ndarray) -> Tensor:
        """(N, C, H, W) to a width of `size`; corner: where a crop lies, two numbers from 0 to 1."""
        height, width = images.shape[-2:]
        new_height, new_width = round(height * self.size / width), self.size
        if self.mode == "resize":
            # size=, not scale_factor=, which computes 119 from 176 * (120 / 176).
            return in_layout_of(images, F.interpolate(images, size=(new_height, new_width), mode="nearest"))
        top, left = int(corner[0] * (height - new_height + 1)), int(corner[1] * (width - new_width + 1))
        return in_layout_of(images, images[..., top : top + new_height, left : left + new_width])

    def _shrink_targets(self, targets: Tensor, corner: np.ndarray) -> Tensor:
        """(N, H, W) class indices or (N, C, H, W) values, in their own type."""
        values = targets.to(torch.float32)
        shrunk = self._shrink(values if values.ndim == 4 else values.unsqueeze(1), corner)
        return (shrunk if values.ndim == 4 else shrunk.squeeze(1)).to(targets.dtype)
