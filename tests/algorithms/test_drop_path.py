"""DropPath: timm's rates, and the outputs of its ResNet, in training for the same draws and in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.resnet import BasicBlock as TimmBasicBlock
from timm.models.resnet import Bottleneck as TimmBottleneck
from timm.models.resnet import ResNet as TimmResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from recipes.algorithms.drop_path import DropPath
from recipes.algorithms.stochastic_depth import StochasticBlock
from tests.algorithms.tiny import CLASSES, equal, graph_breaks, resnet, trainer, weights

pytestmark = pytest.mark.slow
LAYERS = (2, 1, 2, 1)


def drawn(tensor: torch.Tensor, probability: float) -> torch.Tensor:
    """Replace Tensor.bernoulli_ by our draws: those of torch.rand."""
    return tensor.copy_(torch.floor(probability + torch.rand(tensor.shape)))


@pytest.mark.parametrize(("block", "theirs"), [(Bottleneck, TimmBottleneck), (BasicBlock, TimmBasicBlock)])
def test_rates_and_outputs_are_timms(block: Any, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = resnet(block, LAYERS)
    width = 16 if block is Bottleneck else 64
    stock = TimmResNet(theirs, LAYERS, num_classes=CLASSES, base_width=width, drop_path_rate=0.4)
    stock.load_state_dict(ours.state_dict())
    trainer([DropPath(0.4)], model=ours)
    rates = [m.drop_path.drop_prob if m.drop_path else 0 for m in stock.modules() if isinstance(m, theirs)]
    mine = [m for m in ours.modules() if isinstance(m, block)]
    assert [1 - m.keep_probability if isinstance(m, StochasticBlock) else 0 for m in mine] == pytest.approx(rates)
    images = torch.randn(16, 3, 32, 32)
    monkeypatch.setattr(torch.Tensor, "bernoulli_", drawn)
    outputs = []
    for model in (ours, stock):
        torch.manual_seed(3)
        outputs.append(model.train()(images))
    assert torch.allclose(*outputs, atol=1e-5)
    assert torch.allclose(ours.eval()(images), stock.eval()(images), atol=1e-5)


def test_evaluation_and_names_are_the_plain_networks() -> None:
    plain, ours = resnet(layers=LAYERS), resnet(layers=LAYERS)
    trainer([DropPath(0.4)], model=ours)
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(plain.eval()(images), ours.eval()(images)) and equal(weights(plain), weights(ours))
    assert graph_breaks(ours.train()) == 0
