"""LabelSmoothing applies to the loss only."""

from __future__ import annotations

import pytest
import torch
from composer.algorithms.label_smoothing import smooth_labels
from composer.core import Event

from recipes.algorithms.label_smoothing import LabelSmoothing
from tests.algorithms.tiny import CLASSES, Recorder, loader, trainer


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.13, 1.0])
def test_only_the_loss_sees_smoothed_targets(smoothing):
    """Composer's targets, for the limits 0 and 1 too; the labels are restored after the loss."""
    look = Recorder(Event.AFTER_LOSS, lambda state: state.batch[1].clone())
    run = trainer([LabelSmoothing(smoothing)], duration="1ba", callbacks=[look])
    run.fit()
    labels = next(iter(loader()))[1]
    expected = smooth_labels(torch.zeros(8, CLASSES), labels, smoothing)
    assert torch.allclose(run.state.model.seen[0][1], expected)
    assert torch.equal(look.found[0], labels)
