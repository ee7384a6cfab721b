"""CutOut masks normalized images, where zero is the mean."""

from __future__ import annotations

import pytest
from composer.core import Event

from recipes.algorithms.cutout import CutOut
from tests.algorithms.tiny import Recorder, loader, trainer

pytestmark = pytest.mark.slow


def test_holes_are_the_mean_of_normalized_images() -> None:
    """Composer's squares, applied to the model's input; the loader's batch is unchanged."""
    brought = Recorder(Event.BATCH_START, lambda state: state.batch[0].clone())
    run = trainer([CutOut(length=0.5)], duration="2ba", train_loader=loader(2), callbacks=[brought])
    run.fit()
    for (seen, _), images in zip(run.state.model.seen, brought.found, strict=True):
        hole = (seen == 0).all(dim=(0, 1))
        assert 0 < hole.sum() <= 64
        assert (seen[..., ~hole] == images[..., ~hole]).all() and (images != 0).all()
