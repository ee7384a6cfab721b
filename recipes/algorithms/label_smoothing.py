"""LabelSmoothing: a part of every target goes to all classes alike."""

from __future__ import annotations

import torch
from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm, dense_targets


class LabelSmoothing(RecipeAlgorithm):
    """Smooths the targets for the loss only (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567).

    The loss sees (1 - smoothing) * target + smoothing / classes; the metrics see the target as it was. Published for
    the recipes: .08 (mild), .10 (medium), .13 (hot). Works before and after mixup in the list (see MixUp).

    Args:
        smoothing: the part that is spread over all classes, from 0 (nothing changes) to 1.
    """

    BOUNDS = {"smoothing": "a fraction, from 0 to 1"}

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = smoothing
        self._original = torch.empty(0)

    def match(self, event: Event, state: State) -> bool:
        """Around the loss."""
        return event in (Event.BEFORE_LOSS, Event.AFTER_LOSS)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Smooth the targets of the microbatch, or put the original ones back."""
        if event == Event.AFTER_LOSS:
            state.batch_set_item(1, self._original)
            return
        self._original = state.batch_get_item(1)
        outputs = state.outputs
        assert isinstance(outputs, torch.Tensor)
        dense = dense_targets(outputs, self._original)
        state.batch_set_item(1, dense * (1 - self.smoothing) + self.smoothing / outputs.shape[1])
