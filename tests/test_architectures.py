"""The networks that a run may name: the ResNets of MODELS, torchvision's other ones, and timm's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from torchvision.models.regnet import BlockParams

from config import ConfigError, load
from config.schema import MODELS
from model import build_composer_resnet, head_of
from recipes import networks
from recipes.algorithms.blurpool import BlurConv2d
from recipes.algorithms.stochastic_depth import STOCHASTIC
from tests.runs import ROOT
from tools.model_summary.__main__ import network
from training import build

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


OTHERS = sorted(set(torchvision.models.list_models(module=torchvision.models)) - set(MODELS))
HEADS = torch.nn.Linear | torch.nn.Conv2d
QUICK = ("squeezenet1_1", "vit_b_32", "inception_v3", "mobilenet_v3_small", "efficientnet_b0", "swin_t", "maxvit_t")


def test_names_are_torchvisions() -> None:
    assert sorted(networks.builders("torchvision.models")) == sorted({*OTHERS, *MODELS})


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device without memory, but for the numbers from which a RegNet computes its widths."""
    widths = BlockParams.from_init_params

    def computed(*given: Any, **named: Any) -> BlockParams:
        with torch.device("cpu"):
            return widths(*given, **named)

    monkeypatch.setattr(BlockParams, "from_init_params", computed)
    return torch.device("meta")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in OTHERS])
def test_every_network_of_torchvision(name: str, on_meta: torch.device) -> None:
    """A row per image at the smallest size, the last layer found, and as many parameters as torchvision states."""
    size = networks.size_step(name) or max(32, networks.smallest(name))
    with on_meta:
        module = build_composer_resnet(name, num_classes=7, init="torchvision", image_size=size).module.eval()
        assert module(torch.zeros(2, 3, size, size)).shape == (2, 7)
        whole = networks.build(name, 1000, 224)
    assert head_of(module, 7) == [n for n, layer in module.named_modules() if isinstance(layer, HEADS)][-1]
    stated: Any = [*torchvision.models.get_model_weights(name)][-1]  # of a transformer, those at 224 px
    counted = sum(p.numel() for p in whole.parameters())
    assert counted == stated.meta["num_params"] - (3_326_696 if name == "inception_v3" else 0)  # its auxiliary head


def problems(*words: str) -> list[str]:
    """Return what is wrong with a run, without the layers that set it."""
    with pytest.raises(ConfigError) as error:
        load([str(ROOT / "yamls" / "resnet50.yaml"), "dry_run=true", *words])
    return [re.sub(r" \[.*\]$", "", problem) for problem in error.value.problems]


SMALL = "model.init=torchvision train_dataset.crop_size=32 eval_dataset.crop_size=32"
RESNETS = ", ".join(MODELS)
REFUSED = {
    "model.name=vit_b_17": [
        f"model.name: unknown value 'vit_b_17'; did you mean vit_b_16? (choose {RESNETS}, another "
        "classification network of torchvision, as vit_b_16, timm:NAME, or package.module:Class)"
    ],
    "model.name=swin_t": ["model.init: mosaic given, which is for ResNets; with swin_t type model.init=torchvision"],
    "model.name=maxvit_t model.init=torchvision recipe_name=mild algorithms.colout.p_row=0.1": [
        "algorithms.progressive_resizing: changes the image size, but maxvit_t takes images of one size only; type "
        "algorithms.progressive_resizing=null",
        "algorithms.colout: changes the image size, but maxvit_t takes images of one size only; type "
        "algorithms.colout=null",
        "eval_dataset.crop_size: 224 given, but maxvit_t is trained at 176 px and takes images of one size only; type "
        "eval_dataset.crop_size=176",
        "train_dataset.crop_size: 176 is not divisible by the 224 px of maxvit_t; use 224",
    ],
    f"model.name=vit_b_16 {SMALL} train_dataset.crop_size=30 eval_dataset.crop_size=30": [
        "train_dataset.crop_size: 30 is not divisible by the 16 px of vit_b_16; use 16"
    ],
    f"model.name=alexnet {SMALL}": [
        "train_dataset.crop_size: 32 is too small for alexnet; use at least 63 px",
        "eval_dataset.crop_size: 32 is too small for alexnet; use at least 63 px",
    ],
    f"model.name=squeezenet1_0 {SMALL} algorithms.progressive_resizing.initial_scale=0.5": [
        "algorithms.progressive_resizing: starts at 16 px, too small for squeezenet1_0; use at least 21 px"
    ],
    "model.name=inception_v3 model.init=torchvision model.weights=torchvision": [
        "model.weights: torchvision's of inception_v3 are for images normalized otherwise and have auxiliary heads; "
        "type model.weights=null"
    ],
    "model.name=vgg11 model.init=torchvision model.freeze=layer1 optimizer.layer_decay=0.5": [
        "model.freeze: layer1 given, but vgg11 has no such stages; type model.freeze=backbone",
        "optimizer.layer_decay: 0.5 given, but vgg11 has no such layers; type optimizer.layer_decay=1",
    ],
    "model.name=timm:resnet50 algorithms.stochastic_depth.drop_rate=0.1 model.weights=torchvision": [
        "model.weights: torchvision's are not for timm:resnet50; type model.weights=FILE, or model.name=resnet50",
        "algorithms.stochastic_depth: is for the blocks of torchvision's ResNets, which timm:resnet50 has not; type "
        "algorithms.stochastic_depth=null",
    ],
    "model.name=timm:resnt50": [
        "model.name: timm has no resnt50; did you mean resnet50? (timm.list_models() names them all)"
    ],
    "model.name=timm:resnet50.a1_in1k": [
        "model.name: .a1_in1k names weights; type model.name=timm:resnet50 and model.weights=FILE"
    ],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_network_cannot_do(words: str) -> None:
    if "timm:" in words:
        pytest.importorskip("timm")
    assert problems(*words.split()) == REFUSED[words]


def test_a_head_without_bias(on_meta: torch.device) -> None:
    """MaxViT's: probabilities cannot start at 1 / classes; with the advice, it is built."""
    with on_meta, pytest.raises(ConfigError, match=r"maxvit_t has none there; type model\.loss_name=cross_entropy"):
        build_composer_resnet("maxvit_t", "binary_cross_entropy", 7)
    with on_meta:
        assert head_of(build_composer_resnet("maxvit_t", "cross_entropy", 7).module, 7) == "classifier.5"


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    builders = networks.builders
    monkeypatch.setattr(networks, "builders", lambda package: {} if package == "timm.models" else builders(package))
    advice = "pip install -c constraints.txt timm"
    assert problems("model.name=timm:resnet50") == [f"model.name: timm:resnet50 needs timm; type: {advice}"]


@slow
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "resnet18"])
def test_the_same_parameters_decay_as_in_timm(name: str) -> None:
    """By default, timm's optimizers decay no biases, normalization layers, class tokens, embeddings and scales."""
    theirs: Any = pytest.importorskip("timm.optim")
    words = [f"model.name=timm:{name}", "model.num_classes=3", "optimizer.weight_decay_on=weights", "dry_run=true"]
    config = load([str(ROOT / "yamls" / "digits.yaml"), *words]).config
    model = build.model(config)
    spared: Any = getattr(model.module, "no_weight_decay", set)()
    free, decayed = theirs.param_groups_weight_decay(model.module, no_weight_decay_list=spared)
    ours = {group.get("decays", True): group["params"] for group in build.optimizer(config, model).param_groups}
    for group, decays in ((free, False), (decayed, True)):
        assert {id(p) for p in group["params"]} == {id(p) for p in ours[decays]}
