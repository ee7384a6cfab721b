"""Mix: MixUp or CutMix in each batch, as in the recipes of torchvision and timm."""

from __future__ import annotations

import math

import torch
from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm, dense_targets, in_layout_of, seeded_generator


class Mix(RecipeAlgorithm):
    """Mixes each image with a partner by MixUp (arXiv 1710.09412) or CutMix (1905.04899), drawn for every batch.

    MixUp trains on l * image + (1 - l) * partner, with l ~ Beta(alpha, alpha). CutMix pastes a box of the partner, of
    sides sqrt(1 - l) around a uniform center and cut at the edges; l becomes the share of the image that is left.
    Targets are mixed by l. Each rank draws method, l and box once per batch, for all its microbatches, from seed, rank
    and batch alone, so that SAM's second pass, a retry and a resumed run mix alike. Partners are within a microbatch.

    Sources: torchvision's references/classification/transforms.py, timm's data/mixup.py (mode batch). Unlike timm's
    collation, the mixed pixels are not rounded to bytes.

    Args:
        mixup_alpha: parameter of MixUp's Beta distribution. Published: .2 (torchvision_v2, rsb_a1), .1 (rsb_a2, _a3).
        cutmix_alpha: parameter of CutMix's Beta distribution. Published: 1.
        switch_prob: probability of CutMix, else MixUp. Published: .5.
        prob: probability that a batch is mixed at all. Published: 1.
        partners: `roll`, the image before, as in torchvision (with train_dataset.repeats on few ranks, mostly
            another copy of the image); `flip`, the one as far from the end, as in timm.
    """

    BOUNDS = {
        "mixup_alpha": "more than 0",
        "cutmix_alpha": "more than 0",
        "switch_prob": "from 0 to 1",
        "prob": "from 0 to 1",
        "partners": ("roll", "flip"),
    }
    NOT_WITH = {
        "mixup": "mix does the same in a share of the batches, and would mix what is mixed already",
        "cutmix": "mix does the same in a share of the batches, and would mix what is mixed already",
    }
    events = (Event.BEFORE_FORWARD, Event.BEFORE_LOSS)
    rare = True  # a drawn l may be too close to 1 to change anything

    def __init__(
        self,
        mixup_alpha: float = 0.2,
        cutmix_alpha: float = 1.0,
        switch_prob: float = 0.5,
        prob: float = 1.0,
        partners: str = "roll",
    ) -> None:
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.switch_prob = switch_prob
        self.prob = prob
        self.partners = partners
        self._kept = 1.0  # weight of the image's own target

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Mix the images or the targets of the microbatch."""
        if event == Event.BEFORE_LOSS:
            assert isinstance(state.outputs, torch.Tensor)
            dense = dense_targets(state.outputs, state.batch_get_item(1))
            state.batch_set_item(1, torch.lerp(self._partners_of(dense), dense, self._kept))
            return
        images = state.batch_get_item(0)
        self._kept, box = self._draw(state, *images.shape[2:])
        if self._kept == 1:
            return
        others = in_layout_of(images, self._partners_of(images))
        if box is None:
            state.batch_set_item(0, torch.lerp(others, images, self._kept))
            return
        mixed = images.clone()
        mixed[:, :, box[0], box[1]] = others[:, :, box[0], box[1]]
        state.batch_set_item(0, mixed)

    def _partners_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the partner of each image or target of a microbatch."""
        return tensor.roll(1, 0) if self.partners == "roll" else tensor.flip(0)

    def _draw(self, state: State, height: int, width: int) -> tuple[float, tuple[slice, slice] | None]:
        """Return the weight of the images' own targets and, for CutMix, rows and columns of the box, in pixels."""
        draw = seeded_generator(state, "mix")
        if draw.random() >= self.prob:
            return 1.0, None
        if draw.random() >= self.switch_prob:
            return draw.beta(self.mixup_alpha, self.mixup_alpha), None
        half = 0.5 * math.sqrt(1 - draw.beta(self.cutmix_alpha, self.cutmix_alpha))
        rows, columns = (
            slice(max(0, center - int(half * side)), min(side, center + int(half * side)))
            for side, center in ((height, int(draw.integers(height))), (width, int(draw.integers(width))))
        )
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return 1 - area / (height * width), (rows, columns)
