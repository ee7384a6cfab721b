"""ColOut: the same rows and columns for a whole batch, none in the fine-tuning phase; or per image in the loader."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from composer.algorithms import ColOut as StockColOut
from composer.core import Event

from recipes.algorithms.colout import ColOut
from recipes.algorithms.sam import SAM
from tests.algorithms.tiny import loader, trainer

pytestmark = pytest.mark.slow


def run_on_coordinates(*algorithms, duration: str = "4ba", **arguments):
    """Return the images that the loss saw; their pixels encode row and column."""
    data = loader(4, 40, 4)
    grid = torch.arange(40 * 40).float().reshape(40, 40)
    data.dataset.tensors[0][:] = grid
    run = trainer(algorithms, duration=duration, train_loader=data, **arguments)
    run.fit()
    return [images for images, _ in run.state.model.seen]


def test_a_batch_loses_the_same_lines_in_all_microbatches_and_passes():
    """Another batch drops other lines; the sizes are Composer's."""
    seen = run_on_coordinates(ColOut(0.15, 0.3), SAM(), device_train_microbatch_size=2)
    assert len(seen) == 16
    assert {tuple(images.shape) for images in seen} == {(2, 3, 34, 28)}
    assert all(torch.equal(seen[i], seen[i - i % 4]) for i in range(16))
    assert not torch.equal(seen[0], seen[4])
    rows, columns = seen[0][0, 0] // 40, seen[0][0, 0] % 40
    assert (rows[1:] > rows[:-1]).all() and (columns[:, 1:] > columns[:, :-1]).all()
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()


def test_composer_drops_lines_to_the_end():
    """Why finetune_fraction exists: the published run never trained at full size."""
    assert run_on_coordinates(StockColOut(0.05, 0.05))[-1].shape[-1] == 38
    widths = [images.shape[-1] for images in run_on_coordinates(ColOut(0.05, 0.05, finetune_fraction=0.5))]
    assert widths == [38, 38, 40, 40]


def test_176_becomes_167_as_published_and_channels_last_is_kept():
    run = trainer([ColOut(0.05, 0.05)])
    images = torch.randn(1, 3, 176, 176).to(memory_format=torch.channels_last)
    run.state.batch = (images, torch.zeros(1))
    run.state.algorithms[0].apply(Event.BEFORE_FORWARD, run.state, run.logger)
    found = run.state.batch_get_item(0)
    assert found.shape == (1, 3, 167, 167) and found.is_contiguous(memory_format=torch.channels_last)


def test_per_image_in_the_loader():
    """A picklable transform that draws from numpy's generator; the batch itself is unchanged."""
    algorithm = ColOut(0.25, 0.5, batch=False)
    assert ColOut().image_transform is None
    transform = pickle.loads(pickle.dumps(algorithm.image_transform))
    image = torch.randint(0, 255, (3, 40, 20), dtype=torch.uint8)
    np.random.seed(1)
    one = transform(image)
    two = transform(image)
    np.random.seed(1)
    assert one.shape == (3, 30, 10) and one.dtype == torch.uint8
    assert torch.equal(one, transform(image)) and not torch.equal(one, two)
    assert run_on_coordinates(algorithm, duration="1ba")[0].shape[-1] == 40
