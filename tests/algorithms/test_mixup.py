"""MixUp: the published mixture, repeatable draws, and label smoothing before or after it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer.algorithms import LabelSmoothing as StockLabelSmoothing
from composer.algorithms import MixUp as StockMixUp
from composer.core import Time, TimeUnit

from recipes.algorithms.label_smoothing import LabelSmoothing
from recipes.algorithms.mixup import MixUp
from tests.algorithms.tiny import CLASSES, equal, loader, resnet, trainer, weights

pytestmark = pytest.mark.slow


def mixing_of(batch: int, alpha: float = 0.2, rank_seed: int = 17) -> float:
    """Return a batch's mixing coefficient."""
    algorithm = MixUp(alpha)
    images = torch.zeros(2, 1, 1, 1)
    state = SimpleNamespace(
        rank_zero_seed=rank_seed,
        timestamp=SimpleNamespace(batch=Time(batch, TimeUnit.BATCH)),
        batch_get_item=lambda _: images,
        batch_set_item=lambda *_: None,
    )
    algorithm._blend_images(state)
    return algorithm._mixing


def test_coefficients_have_the_published_distribution():
    """Kolmogorov-Smirnov test against min(l, 1-l), l ~ numpy's Beta(alpha, alpha), and the mean."""
    n = 3000
    ours = np.sort([mixing_of(batch) for batch in range(n)])
    draws = np.random.default_rng(0).beta(0.2, 0.2, size=200_000)
    reference = np.sort(np.minimum(draws, 1 - draws))
    distance = np.abs(np.searchsorted(reference, ours, "right") / len(reference) - np.arange(1, n + 1) / n).max()
    assert distance < 1.63 / np.sqrt(n), "exceeds the critical value at 1 %"
    assert ours.mean() == pytest.approx(reference.mean(), abs=0.01)
    assert mixing_of(3, alpha=0.0) == 0.0
    assert mixing_of(3) == mixing_of(3) != mixing_of(3, rank_seed=18)


def test_images_and_targets_are_mixed_with_the_same_partners():
    run = trainer([mixup := MixUp(1.0)], duration="1ba")
    run.fit()
    images, labels = next(iter(loader()))
    mixed, targets = run.state.model.seen[0]
    partners, m = mixup._partners, mixup._mixing
    assert 0 < m <= 0.5 and sorted(partners.tolist()) == list(range(8))
    assert torch.allclose(mixed, (1 - m) * images + m * images[partners], atol=1e-6)
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
    assert torch.allclose(targets, (1 - m) * one_hot + m * one_hot[partners], atol=1e-6)


def test_each_microbatch_draws_its_own_repeatable_coefficient():
    seen = []
    for _ in range(2):
        run = trainer([MixUp(1.0)], duration="2ba", device_train_microbatch_size=4)
        torch.rand(7)  # MixUp must not use the global generator
        run.fit()
        seen.append(run.state.model.seen)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(*seen, strict=True))
    peaks = [targets.max(dim=1).values.min().item() for _, targets in seen[0]]
    assert len(set(peaks)) == 4


@pytest.mark.parametrize("mixup_first", [True, False])
def test_label_smoothing_on_either_side_smooths_both_labels(mixup_first):
    algorithms = [MixUp(1.0), LabelSmoothing(0.2)]
    run = trainer(algorithms if mixup_first else algorithms[::-1], duration="1ba")
    run.fit()
    targets = run.state.model.seen[0][1]
    assert torch.allclose(targets.min(dim=1).values, torch.full((8,), 0.2 / CLASSES))
    assert torch.allclose(targets.sum(dim=1), torch.ones(8))


def test_stock_smooths_one_label_when_smoothing_is_listed_first():
    """Why ours builds the targets in the loss."""
    run = trainer([StockLabelSmoothing(0.2), StockMixUp(1.0)], duration="1ba")
    run.fit()
    assert not torch.allclose(run.state.model.seen[0][1].min(dim=1).values, torch.full((8,), 0.2 / CLASSES))


@pytest.mark.parametrize("smoothing", [[], [LabelSmoothing(0.2)]])
def test_two_losses_equal_one_loss_of_mixed_targets(smoothing):
    """interpolate_loss trains the same weights, because our loss is linear in its targets."""
    images = loader(1)
    images.dataset.tensors = (images.dataset.tensors[0].double(), images.dataset.tensors[1])
    found = []
    for interpolate in (True, False):
        run = trainer(
            [*smoothing, MixUp(1.0, interpolate)], model=resnet().double(), train_loader=images, duration="1ba"
        )
        run.fit()
        found.append(weights(run))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])
    assert not equal(found[0], weights(trainer()))
