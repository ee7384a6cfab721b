"""Mix: the images and targets of torchvision's and timm's own classes for the same draws."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm.data.mixup as timm_mixup
import torch
from composer.core import Event, Time, TimeUnit
from torchvision.transforms import v2

from recipes.algorithms._base import seeded_generator
from recipes.algorithms.label_smoothing import LabelSmoothing
from recipes.algorithms.mix import Mix
from tests.algorithms.tiny import CLASSES, loader, trainer

SHAPE = (6, 3, 20, 24)


class FakeState:
    """A batch at a step of a run, with logits of the targets' shape."""

    def __init__(self, batch: int, seed: int = 17) -> None:
        self.rank_zero_seed = seed
        self.timestamp = SimpleNamespace(batch=Time(batch, TimeUnit.BATCH))
        draw = torch.Generator().manual_seed(batch)
        self.images, self.labels = torch.rand(SHAPE, generator=draw), torch.randint(0, CLASSES, SHAPE[:1])
        self.outputs, self.items = torch.zeros(SHAPE[0], CLASSES), [self.images.clone(), self.labels]

    def batch_get_item(self, key: int) -> torch.Tensor:
        return self.items[key]

    def batch_set_item(self, key: int, value: torch.Tensor) -> None:
        self.items[key] = value


def mixed(algorithm: Mix, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and targets after the algorithm."""
    algorithm.apply(Event.BEFORE_FORWARD, state, None)
    algorithm.apply(Event.BEFORE_LOSS, state, None)
    return state.items[0], state.items[1]


def draws(state: Any, alpha: float) -> tuple[float, list[int]]:
    """Return the l of a batch and the center of its box (row, column)."""
    generator = seeded_generator(state, "mix")
    generator.random(2)
    return generator.beta(alpha, alpha), [int(generator.integers(side)) for side in SHAPE[2:]]


@pytest.mark.parametrize("batch", range(12))
def test_torchvisions_own_classes_give_the_same(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for cut, alpha, stock in ((0, 0.2, v2.MixUp), (1, 1.0, v2.CutMix)):
        state: Any = FakeState(batch)
        images, targets = mixed(Mix(switch_prob=cut), state)
        ratio, center = draws(state, alpha)
        reference = stock(alpha=alpha, num_classes=CLASSES)
        reference._dist = SimpleNamespace(sample=lambda _, ratio=ratio: ratio)
        with monkeypatch.context() as patch:  # torchvision draws the column first
            patch.setattr(torch, "randint", lambda *_, center=center, **__: torch.tensor([center.pop()]))
            wanted, wanted_targets = reference(state.images, state.labels)
        assert torch.allclose(images, wanted, atol=1e-6) and torch.allclose(targets, wanted_targets, atol=1e-6)
        assert not cut or torch.equal(images, wanted)


@pytest.mark.parametrize("cut", [0, 1])
def test_timms_own_class_gives_the_same(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of an odd side are a pixel larger in timm since 2025 than in 2021, when its recipes appeared."""
    compared = 0
    for batch in range(12):
        state: Any = FakeState(batch)
        images, targets = mixed(Mix(0.1, switch_prob=cut, partners="flip"), state)
        ratio, (row, column) = draws(state, 1.0 if cut else 0.1)
        if cut and any(int(side * np.sqrt(1 - ratio)) % 2 for side in SHAPE[2:]):
            continue
        numbers, centers = [0.0, 0.0 if cut else 1.0], [row, column]
        fake = SimpleNamespace(
            rand=lambda numbers=numbers: numbers.pop(0),
            beta=lambda *_, ratio=ratio: ratio,
            randint=lambda *_, centers=centers, **__: centers.pop(0),
        )
        with monkeypatch.context() as patch:
            patch.setattr(timm_mixup, "np", SimpleNamespace(random=fake, sqrt=np.sqrt, clip=np.clip))
            reference = timm_mixup.Mixup(0.1, 1.0, switch_prob=0.5, label_smoothing=0, num_classes=CLASSES)
            wanted, wanted_targets = reference(state.images.clone(), state.labels)
        assert torch.allclose(images, wanted, atol=1e-6) and torch.allclose(targets, wanted_targets, atol=1e-6)
        compared += 1
    assert compared >= 3


def test_the_draws_of_many_batches() -> None:
    """Half of them CutMix, a share of `prob` mixed, the same when a batch is repeated, others for another seed."""
    algorithm, cut, kept = Mix(prob=0.5), 0, []
    for batch in range(2000):
        state: Any = SimpleNamespace(rank_zero_seed=17, timestamp=SimpleNamespace(batch=Time(batch, TimeUnit.BATCH)))
        weight, box = algorithm._draw(state, 176, 176)
        assert (weight, box) == algorithm._draw(state, 176, 176)
        cut += box is not None
        kept.append(weight)
    assert cut / 2000 == pytest.approx(0.25, abs=0.03)
    assert sum(weight < 1 for weight in kept) / 2000 == pytest.approx(0.5, abs=0.04)
    assert algorithm._draw(state, 176, 176) != Mix()._draw(FakeState(1999, seed=18), 176, 176)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing_first", [True, False])
def test_microbatches_share_a_draw_and_labels_are_smoothed_once(smoothing_first: bool) -> None:
    algorithms = [LabelSmoothing(0.2), mix := Mix(switch_prob=0)]
    run = trainer(algorithms if smoothing_first else algorithms[::-1], duration="1ba", device_train_microbatch_size=4)
    run.fit()
    images, labels = next(iter(loader()))
    ratio = mix._kept
    assert 0 < ratio < 1
    for part, (seen, targets) in enumerate(run.state.model.seen):
        own, at = images[4 * part : 4 * part + 4], labels[4 * part : 4 * part + 4]
        dense = torch.nn.functional.one_hot(at, CLASSES).float() * 0.8 + 0.2 / CLASSES
        assert torch.allclose(seen, ratio * own + (1 - ratio) * own.roll(1, 0), atol=1e-6)
        assert torch.allclose(targets, ratio * dense + (1 - ratio) * dense.roll(1, 0), atol=1e-6)
