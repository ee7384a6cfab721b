"""Accuracy with mirror images (flip TTA), measured in a run's own evaluation next to that of the single crop."""

from __future__ import annotations

import torch
from composer.core import State, get_precision_context
from torchmetrics.classification import MulticlassAccuracy

from config.schema import MIRRORED
from recipes.algorithms._base import unwrapped


class Mirrored:
    """Top-1 and top-5 of the sum of the logits of each image and its mirror image, as FFCV's figures are measured.

    Counts the images that the network's own metrics count, over all ranks. It doubles the time of an evaluation.
    """

    def __init__(self, num_classes: int) -> None:
        self._metrics = {
            column: MulticlassAccuracy(num_classes, top_k=min(top, num_classes), average="micro")
            for column, top in zip(MIRRORED, (1, 5), strict=True)
        }

    def start(self, state: State) -> None:
        """Forget the previous evaluation."""
        for metric in self._metrics.values():
            metric.reset()
            state.device.module_to_device(metric)

    def add(self, state: State) -> None:
        """Add a batch that the network has been shown: its images, labels and logits."""
        images, labels = state.batch
        assert isinstance(state.outputs, torch.Tensor)
        with get_precision_context(state.precision, state.precision_config):
            mirrored = unwrapped(state.model).eval_forward((images.flip(-1), labels))  # type: ignore[operator]
        for metric in self._metrics.values():
            metric.update(state.outputs + mirrored, labels)

    def figures(self) -> dict[str, float]:
        """Return the accuracies in percent, by column of metrics.csv; every rank must call it."""
        return {column: round(100 * float(metric.compute()), 4) for column, metric in self._metrics.items()}
