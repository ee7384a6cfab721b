"""The accuracy of each training batch, for the trackers, without Composer's price for it."""

from __future__ import annotations

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from recipes.algorithms._base import at_own_pace


class TrainAccuracy(Callback):
    """Logs metrics/train/MulticlassAccuracy, the share of a batch's images whose label came first.

    The same number as Composer's train metric, which switches the whole model between train and eval mode in every
    step (about a millisecond of a ResNet's step) and makes a dozen reductions over the ranks; here it is one. Images
    count as they were trained, mixed or cut, against the labels that they came with; of SAM's passes, the second.
    Where ranks do not wait for each other it is the accuracy of this rank's own images, without that reduction.
    """

    def __init__(self) -> None:
        self.accuracy = float("nan")
        self._labels: torch.Tensor | None = None
        self._counts: list[torch.Tensor] = []

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Start counting: once per pass over the batch."""
        self._counts = []

    def before_forward(self, state: State, logger: Logger) -> None:
        """Keep the labels, before any of them is softened."""
        self._labels = state.batch[1]

    def after_forward(self, state: State, logger: Logger) -> None:
        """Count a microbatch on its device."""
        assert self._labels is not None
        assert isinstance(state.outputs, torch.Tensor)
        right = state.outputs.detach().argmax(dim=1) == self._labels
        self._counts.append(torch.stack([right.sum(), torch.full_like(right.sum(), len(right))]))

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log it, over all ranks if they wait for each other."""
        counts = torch.stack(self._counts).sum(dim=0)
        if not at_own_pace(state):
            dist.all_reduce(counts, "SUM")
        right, images = counts.tolist()
        self.accuracy = right / images
        logger.log_metrics({"metrics/train/MulticlassAccuracy": self.accuracy})
