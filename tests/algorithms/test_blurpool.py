"""BlurPool: Composer's outputs and names, without graph breaks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from composer.algorithms import BlurPool as StockBlurPool
from composer.algorithms.blurpool import apply_blurpool
from composer.core import Event
from torchvision.models.resnet import BasicBlock, Bottleneck

from recipes.algorithms.blurpool import BlurConv2d, BlurMaxPool2d, BlurPool
from tests.algorithms.tiny import equal, graph_breaks, resnet, saved_by, trainer, weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("block", [Bottleneck, BasicBlock])
@pytest.mark.parametrize("blur_first", [True, False])
def test_outputs_gradients_and_names_equal_composers(block, blur_first):
    stock, ours = resnet(block), resnet(block)
    apply_blurpool(stock, blur_first=blur_first, optimizers=[])
    trainer([BlurPool(blur_first=blur_first)], model=ours)
    assert equal(weights(stock), weights(ours))
    images = torch.randn(4, 3, 32, 32)
    gradients = []
    for model in (stock, ours):
        model(images).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert equal(*gradients)
    assert torch.equal(stock.eval()(images), ours.eval()(images))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # stock's graphs, as torch 2.13 compiles them
def test_no_graph_breaks_where_stock_has_many():
    """Stock reads a tensor's value in each blurred layer; ours uses constants."""
    stock, ours = resnet(), resnet()
    apply_blurpool(stock, optimizers=[])
    trainer([BlurPool()], model=ours)
    assert graph_breaks(stock) > 0
    assert graph_breaks(ours) == 0
    assert graph_breaks(ours.to(memory_format=torch.channels_last)) == 0


def test_a_resnet50_is_changed_only_once():
    """1 max-pool and 6 convolutions, even when applied twice."""
    model = resnet(layers=(3, 4, 6, 3))
    before = {name: id(p) for name, p in model.named_parameters()}
    trainer([BlurPool(), BlurPool()], model=model)
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(BlurMaxPool2d), kinds.count(BlurConv2d)) == (1, 6)
    assert sorted(id(p) for p in model.parameters()) == sorted(before.values()), "parameters were replaced"
    assert not isinstance(model.conv1, BlurConv2d), "min_channels excludes the stem's 3 channels"


def test_channels_last_is_kept():
    model = resnet().to(memory_format=torch.channels_last)
    trainer([BlurPool()], model=model)
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    pooled = model.maxpool(model.conv1(images))
    blurred = model.layer2[0].conv2(model.layer2[0].conv1(model.layer1(pooled)))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (pooled, blurred))
    assert model.layer2[0].conv2.conv.weight.is_contiguous(memory_format=torch.channels_last)
    model.eval()
    expected = model(images.contiguous())
    assert torch.allclose(model(images), expected, atol=1e-5)


@pytest.mark.parametrize("saver, loader", [(BlurPool, BlurPool), (StockBlurPool, BlurPool), (BlurPool, StockBlurPool)])
def test_checkpoints_interchange_without_a_warning(saver, loader, tmp_path: Path):
    """Composer does not add its own BlurPool to ours, and its own loads our checkpoints."""
    first = trainer([saver()])
    path = saved_by(first, tmp_path)
    second = trainer([loader()], model=resnet(seed=5), load_path=path)
    assert equal(weights(first), weights(second))
    assert [type(algorithm) for algorithm in second.state.algorithms] == [loader]


def test_arguments_that_differ_from_the_checkpoints_are_reported(tmp_path: Path):
    path = saved_by(trainer([BlurPool()]), tmp_path)
    with pytest.warns(UserWarning, match="The checkpoint was trained with"):
        trainer([BlurPool(min_channels=17)], load_path=path)


class Shared(torch.nn.Module):
    """Two parents share a convolution and a pool, which also have two names in one parent."""

    def __init__(self) -> None:
        super().__init__()
        conv, pool = torch.nn.Conv2d(16, 16, 3, stride=2, padding=1), torch.nn.MaxPool2d(2)
        self.first, self.second = torch.nn.Sequential(conv, pool), torch.nn.Sequential(conv, pool)
        self.third, self.fourth = conv, pool


@pytest.mark.parametrize("blur_first", [True, False])
def test_a_shared_layer_is_replaced_wherever_it_is(blur_first):
    model = Shared()
    BlurPool(blur_first=blur_first)._replace(model, {})
    assert model.first[0] is model.second[0] is model.third
    assert model.first[1] is model.second[1] is model.fourth
    assert isinstance(model.third, BlurConv2d) and isinstance(model.fourth, BlurMaxPool2d)
    assert model.second(torch.randn(1, 16, 32, 32)).shape[-1] == 8


def test_new_layers_are_on_the_models_device():
    """On Event.INIT the model is already on its device, and nothing moves it later."""
    state = SimpleNamespace(model=resnet().to("meta"))
    BlurPool().apply(Event.INIT, state, SimpleNamespace(log_hyperparameters=lambda _: None))
    assert {t.device.type for t in (*state.model.parameters(), *state.model.buffers())} == {"meta"}
    assert any(isinstance(module, BlurMaxPool2d) for module in state.model.modules())
