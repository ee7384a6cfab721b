"""StochasticDepth: Composer's values, no graph breaks, and both kinds of block."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from composer.algorithms import StochasticDepth as StockStochasticDepth
from composer.algorithms.stochastic_depth import apply_stochastic_depth
from composer.core import Event
from torchvision.models.resnet import BasicBlock, Bottleneck

from recipes.algorithms.blurpool import BlurPool
from recipes.algorithms.stochastic_depth import StochasticBasicBlock, StochasticDepth
from tests.algorithms.tiny import Recorder, equal, graph_breaks, resnet, saved_by, trainer, weights

pytestmark = pytest.mark.slow

NAME = "ResNetBottleneck"


def pair(method: str, **arguments):
    """Build the same network with Composer's stochastic depth and with ours."""
    stock, ours = resnet(layers=(2, 1, 2, 1)), resnet(layers=(2, 1, 2, 1))
    apply_stochastic_depth(stock, NAME, stochastic_method=method, **arguments)
    trainer([StochasticDepth(NAME, method, **arguments)], model=ours)
    return stock, ours


@pytest.mark.parametrize("method", ["block", "sample"])
@pytest.mark.parametrize("distribution", ["linear", "uniform"])
def test_evaluation_and_rates_equal_composers(method, distribution):
    stock, ours = pair(method, drop_rate=0.3, drop_distribution=distribution)
    rates = [float(1 - m.drop_rate) for m in stock.modules() if isinstance(m, Bottleneck)]
    assert [m.keep_probability for m in ours.modules() if isinstance(m, Bottleneck)] == rates
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(stock.eval()(images), ours.eval()(images))
    assert equal(weights(stock), weights(ours))


def test_training_per_sample_equals_composers():
    images = torch.randn(8, 3, 32, 32)
    outputs, gradients = [], []
    for model in pair("sample", drop_rate=0.5):
        torch.manual_seed(3)
        outputs.append(model(images))
        outputs[-1].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_training_per_block_equals_composers():
    """Outputs are equal; in branches that stock skips, gradients are 0 instead of None."""
    images = torch.randn(8, 3, 32, 32)
    unused = []
    for seed in range(4):
        outputs, gradients = [], []
        for model in pair("block", drop_rate=0.9, drop_distribution="uniform"):
            torch.manual_seed(seed)
            outputs.append(model(images))
            outputs[-1].square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        assert torch.allclose(*outputs, atol=1e-6)
        for stock, ours in zip(*gradients, strict=True):
            unused.append(stock is None)
            assert not ours.any() if stock is None else torch.allclose(stock, ours, rtol=1e-3, atol=1e-4)
    assert any(unused), "Composer's left no parameter unused"
    assert StockStochasticDepth(NAME).find_unused_parameters
    assert not StochasticDepth(NAME).find_unused_parameters


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # stock's graphs, as torch 2.13 compiles them
@pytest.mark.parametrize("method", ["block", "sample"])
def test_no_graph_breaks_where_stock_has_some(method):
    """Rates are constants, and branches are multiplied, not skipped."""
    stock, ours = pair(method)
    assert graph_breaks(stock) > 0
    assert graph_breaks(ours) == 0


def test_rates_are_kept_in_bfloat16():
    """A rate of 0.006 is off by a third when drawn in bfloat16, as stock does."""
    model = resnet().bfloat16()
    trainer([StochasticDepth(NAME, "sample", 0.006, "uniform")], model=model)
    block = model.layer4[0]
    n = 1_000_000  # estimates the rate to 0.0001
    ours = block._factor(torch.zeros(n, 1, 1, 1, dtype=torch.bfloat16))
    assert ours.dtype == torch.bfloat16
    assert abs(1 - ours.float().mean() - 0.006) < 0.001
    stock = torch.floor(block.keep_probability + torch.rand(n, dtype=torch.bfloat16))
    assert abs(1 - stock.float().mean() - 0.006) > 0.001, "bfloat16 rounds the rate to 2/256 = 0.0078"


@pytest.mark.parametrize("name", ["ResNetBottleneck", "ResNetBasicBlock"])
def test_basic_blocks_drop_too(name, caplog):
    """Stock logs a warning and does nothing."""
    with caplog.at_level(logging.WARNING):
        trainer([StockStochasticDepth(NAME)], model=(stock := resnet(BasicBlock)))
    assert "no-op" in caplog.text and not any(hasattr(m, "drop_rate") for m in stock.modules())
    model = resnet(BasicBlock)
    trainer([StochasticDepth(name, "sample", 1.0, "uniform")], model=model)
    assert sum(isinstance(m, StochasticBasicBlock) for m in model.modules()) == 4
    block, x = model.layer1[0], torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), x.relu()), "every branch must be dropped"
    assert not torch.equal(resnet(BasicBlock).layer1[0](x), x.relu())


def test_composes_with_blurpool_in_any_order_and_with_copies():
    """Surgery inside the blocks, and a deep copy that is independent."""
    outputs = []
    for algorithms in ([BlurPool(), StochasticDepth()], [StochasticDepth(), BlurPool()]):
        model = resnet()
        trainer(algorithms, model=model)
        twin = copy.deepcopy(model).eval()
        assert twin.layer2[0] is not model.layer2[0]
        outputs.append(twin(torch.ones(2, 3, 32, 32)))
        assert torch.equal(outputs[-1], model.eval()(torch.ones(2, 3, 32, 32)))
        assert graph_breaks(model) == 0
    assert torch.equal(*outputs)


def test_warmup_grows_to_the_full_rate():
    look = Recorder(Event.BATCH_END, lambda state: 1 - state.model.module.layer4[0].keep_probability)
    trainer([StochasticDepth(drop_rate=0.4, drop_warmup="0.5dur")], callbacks=[look]).fit()
    assert look.found == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4, 0.4, 0.4])


def test_loading_gives_no_warning(tmp_path: Path):
    """Composer does not add its own algorithm to ours, and stock's checkpoints load."""
    for saver in (StochasticDepth, StockStochasticDepth):
        first = trainer([saver(NAME)])
        second = trainer([StochasticDepth(NAME)], model=resnet(seed=5), load_path=saved_by(first, tmp_path))
        assert equal(weights(first), weights(second))
        assert [type(algorithm) for algorithm in second.state.algorithms] == [StochasticDepth]
