"""ProgressiveResizing: few, exact sizes, applied to the microbatch."""

from __future__ import annotations

import pytest
import torch
from composer.algorithms import ColOut as StockColOut
from composer.algorithms import ProgressiveResizing as StockProgressiveResizing
from composer.algorithms.progressive_resizing import resize_batch
from composer.core import Event

from recipes.algorithms.colout import ColOut
from recipes.algorithms.progressive_resizing import ProgressiveResizing
from recipes.algorithms.sam import SAM
from tests.algorithms.tiny import BATCH_SIZE, loader, trainer

pytestmark = pytest.mark.slow

GOLDEN = [16, 16, 16, 16, 20, 24, 28, 32, 32, 32]


def sizes(*algorithms, duration: str = "10ba", **arguments) -> list[int]:
    """Return the widths that the loss saw, with 32 px from the loader."""
    run = trainer(algorithms, duration=duration, train_loader=loader(10, 32, 4), **arguments)
    run.fit()
    return [images.shape[-1] for images, _ in run.state.model.seen]


def test_sizes_of_a_run_are_the_golden_trace():
    """0.5 for the first 0.3 of the run, full size for the last 0.3, multiples of 4 between."""
    arguments = {"initial_scale": 0.5, "delay_fraction": 0.3, "finetune_fraction": 0.3}
    assert sizes(ProgressiveResizing(**arguments)) == GOLDEN


def test_listed_sizes_begin_at_their_times():
    """In epochs of the run as it was before scaling, which the loader's builder knows; else in dur."""
    resizing = ProgressiveResizing(sizes=[16, 24, 32], switches=["0.3dur", "2ep"])
    resizing.epochs = 4.0
    assert sizes(resizing) == [16] * 3 + [24] * 2 + [32] * 5 and resizing.max_sizes == 3


def test_all_microbatches_and_passes_of_a_batch_have_one_size():
    """Two microbatches and SAM: four forward passes per batch."""
    arguments = {"initial_scale": 0.5, "delay_fraction": 0.3, "finetune_fraction": 0.3}
    seen = sizes(ProgressiveResizing(**arguments), SAM(), device_train_microbatch_size=2)
    assert seen == [size for size in GOLDEN for _ in range(4)]


def shrunk(algorithm: ProgressiveResizing, images: torch.Tensor, targets: torch.Tensor, size: int):
    """Apply the algorithm to one microbatch at a given size."""
    run = trainer([algorithm])
    run.state.batch = (images, targets)
    algorithm.size = size
    algorithm.apply(Event.BEFORE_FORWARD, run.state, run.logger)
    return run.state.batch


def test_120_of_176_stays_120():
    """Stock computes 119 in floating point."""
    images, labels = torch.randn(2, 3, 176, 176), torch.zeros(2, dtype=torch.int64)
    assert resize_batch(images, labels, scale_factor=120 / 176)[0].shape[-1] == 119
    assert shrunk(ProgressiveResizing(), images, labels, 120)[0].shape == (2, 3, 120, 120)


def test_nearest_neighbor_as_published_and_channels_last_is_kept():
    """Stock's pixels, where stock's size is right."""
    images, labels = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last), torch.zeros(2).long()
    expected = resize_batch(images, labels, scale_factor=0.5)[0]
    for mode in ("resize", "crop"):
        found = shrunk(ProgressiveResizing(mode), images, labels, 16)[0]
        assert found.shape == (2, 3, 16, 16)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, expected) == (mode == "resize")


def test_crops_are_cut_from_the_image_and_repeat_within_a_batch():
    """The crop's position is seeded by the batch, not by the global generator."""
    images = torch.arange(32 * 32).float().reshape(1, 1, 32, 32).repeat(1, 3, 1, 1)
    one, other = (shrunk(ProgressiveResizing("crop"), images, torch.zeros(1).long(), 24)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(one[0, 0, :, 1:] - one[0, 0, :, :-1], torch.ones(24, 23))


@pytest.mark.parametrize("shape, kind", [((2, 32, 32), torch.int64), ((2, 1, 32, 32), torch.float32)])
def test_image_targets_are_resized_too(shape, kind):
    targets = torch.arange(2 * 32 * 32).reshape(shape).to(kind)
    images = targets.reshape(2, 1, 32, 32).float().repeat(1, 3, 1, 1)
    for mode in ("resize", "crop"):
        x, y = shrunk(ProgressiveResizing(mode, resize_targets=True), images, targets, 24)
        assert y.dtype == kind and torch.equal(x[:, 0], y.reshape(2, 24, 24).float())
    assert shrunk(ProgressiveResizing(), images, targets, 24)[1] is targets


def test_after_colout_the_fine_tuning_phase_is_full_size():
    """Stock's runs end at the odd size that ColOut leaves."""
    arguments = {"initial_scale": 0.5, "delay_fraction": 0.3, "finetune_fraction": 0.3}
    assert sizes(StockProgressiveResizing(**arguments), StockColOut(0.05, 0.05))[-1] == 30
    ours = sizes(ColOut(0.05, 0.05, finetune_fraction=0.3), ProgressiveResizing(**arguments))
    assert ours == [16, 16, 16, 16, 20, 24, 28, 32, 32, 32]


def test_evaluation_images_are_not_resized():
    run = trainer([ProgressiveResizing()], train_loader=loader(2, 32), eval_dataloader=loader(1, 32), duration="1ba")
    widths = []
    forward = run.state.model.forward
    run.state.model.forward = lambda batch: (widths.append(batch[0].shape[-1]), forward(batch))[1]
    run.fit()
    run.eval()
    assert widths[0] == 16 and set(widths[1:]) == {32}
    assert len(run.state.model.seen[0][0]) == BATCH_SIZE
