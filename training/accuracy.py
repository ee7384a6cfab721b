"""Training accuracy per batch for the trackers, without the cost of Composer's train metric."""

from __future__ import annotations

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from recipes.algorithms._base import at_own_pace


class TrainAccuracy(Callback):
    """Log metrics/train/MulticlassAccuracy, the top-1 accuracy of each training batch, 0 to 1.

    Composer's train metric gives the same number, but switches the whole model between train and eval mode in every
    step (about 1 ms for a ResNet) and makes a dozen reductions over the ranks; this makes one. Augmented images are
    scored against their original labels; with SAM, the second pass counts. When ranks do not wait for each other,
    each rank logs the accuracy of its own images.
    """

    def __init__(self) -> None:
        self.accuracy = float("nan")
        self._labels: torch.Tensor | None = None
        self._counts: list[torch.Tensor] = []

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Reset the counts; called once per pass over the batch."""
        self._counts = []

    def before_forward(self, state: State, logger: Logger) -> None:
        """Keep the labels before MixUp, CutMix or label smoothing change them."""
        self._labels = state.batch[1]

    def after_forward(self, state: State, logger: Logger) -> None:
        """Count correct predictions of a microbatch, on its device."""
        assert self._labels is not None
        assert isinstance(state.outputs, torch.Tensor)
        right = state.outputs.detach().argmax(dim=1) == self._labels
        self._counts.append(torch.stack([right.sum(), torch.full_like(right.sum(), len(right))]))

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the accuracy, over all ranks if they wait for each other."""
        counts = torch.stack(self._counts).sum(dim=0)
        if not at_own_pace(state):
            dist.all_reduce(counts, "SUM")
        right, images = counts.tolist()
        self.accuracy = right / images
        logger.log_metrics({"metrics/train/MulticlassAccuracy": self.accuracy})
