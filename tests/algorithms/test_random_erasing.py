"""RandomErasing: torchvision's boxes for the same draws, whatever the ranks and microbatches."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from composer.core import Event, Time, TimeUnit
from composer.utils import dist
from torchvision.transforms import RandomErasing as Stock

from recipes.algorithms.random_erasing import RandomErasing
from tests.algorithms.tiny import Recorder, loader, trainer


def stocks_image(draws: np.ndarray, height: int, width: int, patch: pytest.MonkeyPatch, **given: Any) -> torch.Tensor:
    """Return torchvision's image of ones, erased with the given draws: float32 [3, H, W]."""
    left = draws.tolist()

    def randint(low: int, high: int, **_: Any) -> torch.Tensor:
        return torch.tensor([low + int(left.pop(0) * (high - low))])

    uniform = SimpleNamespace(uniform_=lambda low, high: torch.tensor([float(low + left.pop(0) * (high - low))]))
    patch.setattr(torch, "rand", lambda *_: torch.tensor(left.pop(0)))
    patch.setattr(torch, "empty", lambda *_: uniform)
    patch.setattr(torch, "randint", randint)
    return Stock(value=0, **given)(torch.ones(3, height, width))


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"p": 1.0}, (176, 176)),
        ({"p": 0.5}, (40, 32)),
        ({"p": 1.0, "scale": (0.8, 1.0), "ratio": (0.2, 5.0)}, (24, 30)),
    ],
)
def test_boxes_are_torchvisions(given: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last case often needs another try, and sometimes more than there are."""
    draws = np.random.default_rng(3).random((60, 41))
    boxes, kept, tried = RandomErasing(**given).boxes(draws, *size), 0, 0
    for row, (top, bottom, left, right) in zip(draws, boxes, strict=True):
        # torchvision draws a place only for a box that fits.
        tries = row[1:].reshape(-1, 4)
        area = size[0] * size[1] * (given.get("scale", (0.02, 0.33)) @ np.stack([1 - tries[:, 0], tries[:, 0]]))
        low, high = np.log(given.get("ratio", (0.3, 3.3)))
        aspect = np.exp(low + (high - low) * tries[:, 1])
        fit = (np.rint(np.sqrt(area * aspect)) < size[0]) & (np.rint(np.sqrt(area / aspect)) < size[1])
        used = [row[0], *(value for try_, fits in zip(tries, fit, strict=True) for value in try_[: 4 if fits else 2])]
        with monkeypatch.context() as patch:
            wanted = stocks_image(np.array(used), *size, patch, **given)
        found = torch.ones(3, *size)
        found[:, top:bottom, left:right] = 0
        assert torch.equal(found, wanted)
        kept, tried = kept + bool(wanted.all()), tried + (not fit[0])
    assert (kept > 0) == (given["p"] < 1 or "scale" in given)
    assert (tried > 20) == ("scale" in given)


def erased(monkeypatch: pytest.MonkeyPatch, ranks: int, microbatch: int, batch: int = 3) -> torch.Tensor:
    """Return 24 erased images of a step in the epoch's order."""
    images, found = torch.ones(24, 1, 16, 16), torch.zeros(24, 1, 16, 16)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    for rank in range(ranks):
        monkeypatch.setattr(dist, "get_global_rank", lambda rank=rank: rank)
        algorithm, parts = RandomErasing(0.5), []
        for _ in range(2):  # a second pass over the batch is the same
            state: Any = SimpleNamespace(
                rank_zero_seed=17, timestamp=SimpleNamespace(batch=Time(batch, TimeUnit.BATCH))
            )
            algorithm.apply(Event.BEFORE_TRAIN_BATCH, state, None)  # type: ignore[arg-type]
            for part in images[rank::ranks].split(microbatch):
                state.batch_get_item = lambda _, part=part: part
                parts.append(part)
                state.batch_set_item = lambda _, value, parts=parts: parts.__setitem__(-1, value)
                algorithm.apply(Event.BEFORE_FORWARD, state, None)  # type: ignore[arg-type]
        first, second = torch.cat(parts).chunk(2)
        assert torch.equal(first, second)
        found[rank::ranks] = first
    return found


def test_boxes_do_not_depend_on_ranks_and_microbatches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = erased(monkeypatch, 1, 24)
    assert 6 <= (whole == 0).any(dim=3).any(dim=2).sum() <= 18
    for ranks, microbatch in ((1, 5), (2, 12), (3, 8), (4, 4)):
        assert torch.equal(erased(monkeypatch, ranks, microbatch), whole)
    assert not torch.equal(erased(monkeypatch, 1, 24, batch=4), whole)


def test_bad_arguments() -> None:
    for given, sentence in (
        ({"scale": (0.5, 0.1)}, r"scale: \(0.5, 0.1\) given, but the first number must not exceed the second"),
        ({"ratio": (0, 1)}, r"ratio: \(0, 1\) given, but it must be more than 0"),
        ({"p": 2}, "p: 2 given, but it must be from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            RandomErasing(**given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_erases_the_models_input() -> None:
    """The loader's batch is unchanged, and the layout too."""
    random.seed(0)
    brought = Recorder(Event.BATCH_START, lambda state: state.batch[0].clone())
    run = trainer([RandomErasing(0.7)], duration="2ba", train_loader=loader(2), callbacks=[brought])
    run.fit()
    for (seen, _), images in zip(run.state.model.seen, brought.found, strict=True):
        hole = seen == 0
        assert 0 < hole.float().mean() < 0.33 and torch.equal(seen[~hole], images[~hole])
        assert not (images == 0).any()
