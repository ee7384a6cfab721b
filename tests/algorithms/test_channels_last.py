"""ChannelsLast converts every convolution, whatever the order of the algorithms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from composer.algorithms import BlurPool as StockBlurPool
from composer.algorithms import ChannelsLast as StockChannelsLast

from recipes.algorithms.blurpool import BlurPool
from recipes.algorithms.channels_last import ChannelsLast
from recipes.algorithms.ema import EMA
from tests.algorithms.tiny import equal, saved_by, trainer, weights

pytestmark = pytest.mark.slow


def share_of(tensors) -> float:
    """Return the fraction of the 4-dimensional tensors that are in channels_last."""
    found = [t.is_contiguous(memory_format=torch.channels_last) for t in tensors if t.ndim == 4]
    return sum(found) / len(found)


def test_every_convolution_is_converted_unlike_in_composer():
    """Even when listed before blurpool."""
    stock = trainer([StockChannelsLast(), StockBlurPool()])
    ours = trainer([ChannelsLast(), BlurPool()])
    assert share_of(stock.state.model.parameters()) < 1
    assert share_of(ours.state.model.parameters()) == 1


def test_state_and_average_follow_a_checkpoint_in_another_format(tmp_path: Path):
    """Momentum and moving average from a contiguous run are converted, with the same values."""
    first = trainer([EMA("4ba")])
    first.fit()
    path = saved_by(first, tmp_path)
    content = torch.load(path, weights_only=False)
    content["state"]["algorithms"].append(("ChannelsLast", {"repr": "ChannelsLast()"}))
    torch.save(content, path)
    second = trainer([ema := EMA("4ba"), ChannelsLast()], load_path=path, duration="7ba")
    assert equal(weights(first), weights(second))
    momentum = [slots["momentum_buffer"] for slots in second.state.optimizers[0].state.values()]
    assert share_of(momentum) == 1
    second.fit()
    assert share_of(ema._parameters.values()) == 1
