"""RandomErasing: erase a random box of some of the normalized images, in which zero is the mean color."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from composer.core import Event, State
from composer.loggers import Logger
from composer.utils import dist

from recipes.algorithms._base import RecipeAlgorithm, indices_to

_TRIES = 10


class RandomErasing(RecipeAlgorithm):
    """Replaces a random box by the mean color in a share of the images (Zhong et al. 2017, arXiv 1708.04896).

    As torchvision's RandomErasing after normalization, with value 0, but on the device. An image's box depends only on
    the seed, the batch and the image's position in it, for any number of ranks and microbatches.

    Args:
        p: probability that an image is erased. Published: .1 (torchvision_v2).
        scale: smallest and largest share of the image's area in the box.
        ratio: smallest and largest height of the box, relative to its width; between them, the logarithm is uniform.
    """

    events = (Event.BEFORE_TRAIN_BATCH, Event.BEFORE_FORWARD)
    BOUNDS = {"p": "from 0 to 1", "scale": "from 0 to 1", "ratio": "more than 0"}
    RULES = {
        "scale[0] <= scale[1]": "scale: {scale} given, but the first number must not exceed the second",
        "ratio[0] <= ratio[1]": "ratio: {ratio} given, but the first number must not exceed the second",
    }
    rare = True

    def __init__(
        self, p: float = 0.1, scale: tuple[float, float] = (0.02, 0.33), ratio: tuple[float, float] = (0.3, 3.3)
    ) -> None:
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self._done = 0  # images of this rank's batch, in earlier microbatches

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Erase the boxes of a microbatch."""
        if event == Event.BEFORE_TRAIN_BATCH:
            self._done = 0
            return
        images = state.batch_get_item(0)
        count, _, height, width = images.shape
        before, ranks = self._done * dist.get_world_size(), dist.get_world_size()
        self._done += count
        # A step's samples are consecutive in the epoch's order, and dealt out to the ranks one by one.
        purpose = zlib.crc32(b"random_erasing")
        generator = np.random.default_rng([state.rank_zero_seed, state.timestamp.batch.value, purpose])
        draws = generator.random((before + count * ranks, 1 + 4 * _TRIES))[before + dist.get_global_rank() :: ranks]
        boxes = self.boxes(draws, height, width)
        if not boxes.any():
            return
        top, bottom, left, right = indices_to(images.device, boxes).unsqueeze(2).unbind(1)
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        state.batch_set_item(0, images.masked_fill(in_rows[:, None, :, None] & in_columns[:, None, None, :], 0))

    def boxes(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return top, bottom, left and right of each image's box in pixels, int64 [B, 4]; zeros if nothing is erased.

        Args:
            draws: uniform numbers from 0 to 1, float64 [B, 41]: whether to erase, then size, ratio, top and left of
                each try; the first box that fits is taken.
            height, width: of the images, in pixels.
        """
        size, ratio, top, left = draws[:, 1:].reshape(-1, _TRIES, 4).transpose(2, 0, 1)
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * size)
        low, high = np.log(self.ratio)
        aspect = np.exp(low + (high - low) * ratio)
        rows, columns = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (rows < height) & (columns < width)
        top, left = np.floor(top * (height - rows + 1)), np.floor(left * (width - columns + 1))
        every = np.stack([top, top + rows, left, left + columns], axis=-1).astype(np.int64)
        chosen = every[np.arange(len(draws)), fits.argmax(axis=1)]
        return chosen * ((draws[:, 0] < self.p) & fits.any(axis=1))[:, None]
