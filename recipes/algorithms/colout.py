"""ColOut: remove random rows and columns from the images."""

from __future__ import annotations

import numpy as np
import torch
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor

from recipes.algorithms._base import RecipeAlgorithm, in_layout_of, indices_to, seeded_generator


def _kept(size: int, dropped_fraction: float, permutation: np.ndarray) -> np.ndarray:
    """Return the sorted rows (or columns) to keep: int((1 - fraction) * size) of them, as published (176 -> 167)."""
    return np.sort(permutation[: int((1 - dropped_fraction) * size)])


class ColOutTransform:
    """Removes rows and columns from an image, drawn from numpy's global generator, which is seeded per sample."""

    def __init__(self, p_row: float, p_col: float) -> None:
        self.p_row, self.p_col = p_row, p_col

    def __call__(self, pixels: Tensor) -> Tensor:
        """Reduce an image, uint8 [3, H, W]."""
        height, width = pixels.shape[1:]
        rows = _kept(height, self.p_row, np.random.permutation(height))
        columns = _kept(width, self.p_col, np.random.permutation(width))
        return torch.from_numpy(pixels.permute(1, 2, 0).numpy()[rows][:, columns]).permute(2, 0, 1)


class ColOut(RecipeAlgorithm):
    """Removes random rows and columns: an augmentation that also makes images smaller.

    From Composer (https://docs.mosaicml.com/projects/composer/en/stable/method_cards/colout.html). In batch mode all
    images of a batch lose the same rows and columns, on the device, at Event.BEFORE_FORWARD; all microbatches and both
    passes of SAM agree. List it before progressive_resizing, as published. Published for hot: .05 and .05 until the end
    of the run, which therefore never trained at the full 176 px; finetune_fraction repairs that.

    Args:
        p_row: fraction of rows to remove, at least 0 and below 1.
        p_col: fraction of columns to remove, at least 0 and below 1.
        batch: treat the whole batch alike on the device; otherwise each image separately, in the loader.
        finetune_fraction: last fraction of the run, in which nothing is removed; only in batch mode.
    """

    BOUNDS = {
        "p_row": "a fraction, from 0, less than 1",
        "p_col": "a fraction, from 0, less than 1",
        "finetune_fraction": "a fraction, from 0 to 1",
    }
    RULES = {
        "batch or not finetune_fraction": (
            "finetune_fraction: must be 0 with batch=false, because a loader does not know the progress of the run"
        )
    }
    PER_IMAGE = "not batch"
    RESIZES = True

    def __init__(
        self, p_row: float = 0.15, p_col: float = 0.15, batch: bool = True, finetune_fraction: float = 0.0
    ) -> None:
        self.p_row = p_row
        self.p_col = p_col
        self.batch = batch
        self.finetune_fraction = finetune_fraction
        self.image_transform = None if batch else ColOutTransform(p_row, p_col)

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """Return the side of which `wanted` pixels remain after removal, at most `crop_size`."""
        if not self.batch or not self._is_on(elapsed):
            return wanted
        kept = 1 - max(self.p_row, self.p_col)
        return next((size for size in range(wanted, crop_size) if int(kept * size) >= wanted), crop_size)

    def _is_on(self, elapsed: float) -> bool:
        return self.finetune_fraction == 0 or elapsed < 1 - self.finetune_fraction

    def match(self, event: Event, state: State) -> bool:
        """Run before training forward passes in batch mode, until the fine-tuning phase."""
        if not self.batch or event != Event.BEFORE_FORWARD:
            return False
        elapsed = state.get_elapsed_duration()
        return elapsed is None or self._is_on(elapsed.value)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Remove this batch's rows and columns from a microbatch of shape (N, C, H, W)."""
        images = state.batch_get_item(0)
        height, width = images.shape[-2:]
        draw = seeded_generator(state, "colout")
        rows = indices_to(images.device, _kept(height, self.p_row, draw.permutation(height)))
        columns = indices_to(images.device, _kept(width, self.p_col, draw.permutation(width)))
        state.batch_set_item(0, in_layout_of(images, images[..., rows[:, None], columns]))
