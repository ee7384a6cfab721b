"""The networks that a run may name: the ResNets of MODELS, torchvision's other ones, and timm's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from config import load
from config.schema import MODELS
from model import build_composer_resnet
from recipes.algorithms.blurpool import BlurConv2d
from recipes.algorithms.stochastic_depth import STOCHASTIC
from tests.runs import ROOT
from tools.model_summary.__main__ import network

slow = pytest.mark.slow


@pytest.mark.parametrize("name", MODELS)
def test_parameters_as_published(name: str) -> None:
    """As many as torchvision states next to its weights, which are a source of their own."""
    with torch.device("meta"):
        module = build_composer_resnet(name).module
    weights: Any = torchvision.models.get_model_weights(name)
    assert sum(p.numel() for p in module.parameters()) == weights.DEFAULT.meta["num_params"]


@slow
def test_names_and_shapes_are_timms() -> None:
    """`--format timm` and hub write torchvision's weights as timm's network of the same name."""
    timm: Any = pytest.importorskip("timm")
    for name in MODELS:
        with torch.device("meta"):
            ours, theirs = getattr(torchvision.models, name)(), timm.create_model(name)
        shapes = [{k: t.shape for k, t in one.state_dict().items()} for one in (ours, theirs)]
        assert shapes[0] == shapes[1], name


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_surgery_of_wide_and_grouped_blocks(name: str) -> None:
    """As of a ResNet-50: 7 strided convolutions, the stem's too, and 16 blocks; the output is one row per image."""
    words = [f"model.name={name}", "model.num_classes=7", "algorithms.blurpool.min_channels=3", "dry_run=true"]
    words += ["algorithms.stochastic_depth={drop_rate: 0.1, stochastic_method: sample}"]
    module = network(load([str(ROOT / "yamls" / "resnet50.yaml"), *words]))
    kinds = [type(layer) for layer in module.modules()]
    assert kinds.count(BlurConv2d) == 7 and kinds.count(STOCHASTIC[torchvision.models.resnet.Bottleneck]) == 16
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 7)
