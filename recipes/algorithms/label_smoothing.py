"""LabelSmoothing: spread a fraction of every target over all classes."""

from __future__ import annotations

import torch
from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm, dense_targets


class LabelSmoothing(RecipeAlgorithm):
    """Smooths the targets of the loss (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567).

    The loss uses (1 - smoothing) * target + smoothing / classes; metrics use the original target. Published: .08
    (mild), .10 (medium), .13 (hot). May be listed before or after mixup (see MixUp).

    Args:
        smoothing: fraction spread over all classes, from 0 (no change) to 1.
    """

    events = (Event.BEFORE_LOSS, Event.AFTER_LOSS)
    BOUNDS = {"smoothing": "a fraction, from 0 to 1"}
    RULES = {
        "config.model.target_threshold is None": (
            "model.target_threshold makes targets 0 or 1 again; type algorithms.label_smoothing=null, or "
            "model.target_threshold=null"
        )
    }

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = smoothing
        self._original = torch.empty(0)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Smooth the targets of the microbatch, or restore them."""
        if event == Event.AFTER_LOSS:
            state.batch_set_item(1, self._original)
            return
        self._original = state.batch_get_item(1)
        outputs = state.outputs
        assert isinstance(outputs, torch.Tensor)
        dense = dense_targets(outputs, self._original)
        state.batch_set_item(1, dense * (1 - self.smoothing) + self.smoothing / outputs.shape[1])
