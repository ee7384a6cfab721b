"""Which parameters are trained and at which rate: frozen stages, param groups, and their rates in every optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from config import ConfigError
from config.schema import Config, Model
from config.stages import HEAD, STAGES, frozen, rate_line, trained_rates
from recipes.batchnorm_statistics import recompute
from recipes.frozen_batchnorm import is_frozen
from tests.algorithms.tiny import graph_breaks
from tests.pretrained import Convolutional, Own
from training import build
from training.param_groups import Grouping, freeze, learning_rate, network_of, stage_of

CLASSES = 3


def config_of(optimizer: dict[str, Any] | None = None, **model: Any) -> Config:
    """Return a run of a network of three classes."""
    settings = {"name": "sgd", "lr": 0.1, **(optimizer or {})}
    return Config(model=Model(**{"name": "resnet18", "num_classes": CLASSES, **model}), optimizer=settings)


@pytest.fixture(autouse=True)
def small(few_channels: None) -> None:
    """Use a ResNet-18 of few channels."""


def network() -> Any:
    """Return a ResNet-18 whose weights are always the same."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=CLASSES)


def stages_of(model: nn.Module, names: list[str]) -> set[str]:
    """Return the stages of parameters."""
    stage = stage_of(model, config_of(freeze="backbone"))
    return {stage(name) for name in names}


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        (None, ()),
        ("backbone", STAGES),
        ("layer1,stem", ("stem", "layer1")),
        ("stem, layer4", ("stem", "layer4")),
        ("through:stem", ("stem",)),
        ("through:layer2", ("stem", "layer1", "layer2")),
    ],
)
@pytest.mark.parametrize("batchnorm", ["auto", True, False])
def test_what_is_frozen(given: str | None, stages: tuple[str, ...], batchnorm: str | bool) -> None:
    """Parameters by stage; statistics of the frozen stages, of every BatchNorm, or of none."""
    model, config = network(), config_of(freeze=given, freeze_batchnorm=batchnorm)
    names = list(model.state_dict())
    freeze(model, config)
    assert frozen(given) == stages and list(model.state_dict()) == names
    still = [name for name, p in model.named_parameters() if not p.requires_grad]
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    expected = norms if batchnorm is True else set()
    if batchnorm == "auto":
        expected = {name for name in norms if stages_of(model, [name]) <= set(stages)}
    of_frozen = [name for name, _ in model.named_parameters() if stages_of(model, [name]) <= set(stages)]
    of_norms = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in expected]
    assert set(still) == {*of_frozen, *of_norms}
    model.eval().train()
    assert {name for name, module in model.named_modules() if is_frozen(module)} == expected
    assert {name for name in norms if not model.get_submodule(name).training} == expected
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recompute(model, [torch.randn(4, 3, 32, 32)])
    model(torch.randn(4, 3, 32, 32))
    changed = {name.rpartition(".")[0] for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}
    assert changed == norms - expected, "recomputing and training change the other statistics only"
    trained = [p for p in model.parameters() if p.requires_grad]
    held = [p for group in build.optimizer(config, model).param_groups for p in group["params"]]
    assert list(map(id, held)) == list(map(id, trained))


@pytest.mark.slow
def test_a_frozen_network_is_one_graph() -> None:
    for batchnorm in ("auto", False):
        model = network()
        freeze(model, config_of(freeze="through:layer2", freeze_batchnorm=batchnorm))
        assert graph_breaks(model.train()) == 0


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "decoupled_sgdw": {"momentum": 0.9, "weight_decay": 1e-2},
    "decoupled_adam_w": {"weight_decay": 1e-2},
    "sgd": {"momentum": 0.9, "weight_decay": 1e-2, "nesterov": True},
    "adam": {"weight_decay": 1e-2},
    "adamw": {"weight_decay": 1e-2},
    "sgd_schedule_free": {"weight_decay": 1e-2},
    "adam_w_schedule_free": {"weight_decay": 1e-2},
    "accum_adam": {"weight_decay": 1e-2, "accum_iter": 2},
    "adafactor": {"weight_decay": 1e-2},  # trust ratios, like LARS: of each tensor, not of a group
}


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, gradients: list[dict[str, Tensor]]) -> None:
    """Step with given gradients, at half the rate from the second one on."""
    getattr(optimizer, "train", lambda: None)()
    for number, by_name in enumerate(gradients):
        for name, p in model.named_parameters():
            p.grad = by_name[name].clone() if p.requires_grad else None
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1.0 if number == 0 else 0.5)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_stage_is_trained_as_alone_at_its_own_rate(name: str) -> None:
    """Bit for bit: head x 10, layer4 x 1/2, layer3 x 1/4, ... of lr; and without decay where there is none."""
    tuned = {"name": name, "lr": 0.01, **OPTIMIZERS[name]}
    grouping = {"head_lr_multiplier": 8.0, "layer_decay": 0.5, "weight_decay_on": "weights"}
    config, model = config_of(tuned | grouping, freeze="stem"), network()
    freeze(model, config)
    gradients = [{name: torch.randn_like(p) for name, p in model.named_parameters()} for _ in range(3)]
    optimizer = build.optimizer(config, model)
    assert learning_rate(optimizer) == 0.01
    steps(model, optimizer, gradients)
    stage = stage_of(model, config)
    rates = {"layer1": 0.01 / 16, "layer2": 0.01 / 8, "layer3": 0.01 / 4, "layer4": 0.01 / 2, HEAD: 0.08}
    assert trained_rates(config) == rates
    spared = [name for name, p in model.named_parameters() if p.ndim == 1]
    start = network()
    for part, rate in rates.items():
        for decays in (True, False):
            alone = network()
            for one, p in alone.named_parameters():
                p.requires_grad_(stage(one) == part and (one not in spared) == decays)
            plain = tuned | {"lr": rate} | ({} if decays else {"weight_decay": 0.0})
            steps(alone, build.optimizer(config_of(plain), alone), gradients)
            for one, p in alone.named_parameters():
                if p.requires_grad:
                    assert torch.equal(p, model.get_parameter(one)), (part, one)
                    assert not torch.equal(p, start.get_parameter(one))
    assert all(torch.equal(p, start.get_parameter(n)) for n, p in model.named_parameters() if stage(n) == "stem")


def test_a_run_without_such_keys_has_the_groups_that_it_always_had() -> None:
    for keys, count in (
        ({}, 1),
        ({"layer_decay": 1.0, "head_lr_multiplier": None}, 1),
        ({"weight_decay_on": "weights"}, 2),
    ):
        model = network()
        groups = build.optimizer(config_of(keys), model).param_groups
        assert len(groups) == count and not any("lr_multiplier" in group for group in groups)
    assert [id(p) for p in model.parameters()] != [id(p) for group in groups for p in group["params"]]


def test_groups_survive_surgery_and_other_groups_of_a_checkpoint() -> None:
    """One group until the surgery is over; what a checkpoint says of rates and decay is replaced by the run's."""
    model, config = network(), config_of({"head_lr_multiplier": 4.0, "weight_decay_on": "weights", "weight_decay": 0.5})
    optimizer = build.optimizer(config, model)
    whole = Grouping(config, model, optimizer)
    assert len(optimizer.param_groups) == 1
    model.layer4.add_module("added", nn.Linear(2, 2))
    optimizer.param_groups[0]["params"] += model.layer4.added.parameters()
    whole.split(model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        del group["momentum"]
        group |= {"lr_multiplier": 99, "decays": False, "weight_decay": 9.0, "counted": 7}
    whole.split(model)
    build.set_hyperparameters(optimizer, config)
    found = [(g["lr"], g["initial_lr"], g["weight_decay"], g["momentum"], g["counted"]) for g in optimizer.param_groups]
    assert sorted(found) == [(0.1, 0.1, 0.0, 0, 7), (0.1, 0.1, 0.5, 0, 7), (0.4, 0.4, 0.0, 0, 7), (0.4, 0.4, 0.5, 0, 7)]


def test_a_users_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but its head can be frozen, and its head trained faster; it has no stages, perhaps no head."""
    model, config = Own(CLASSES), config_of({"head_lr_multiplier": 2.0}, name="own.module:Own", freeze="backbone")
    freeze(model, config)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["classifier.weight", "classifier.bias"]
    [group] = build.optimizer(config, model).param_groups
    assert group["lr"] == 0.2 and network_of(model) is model
    for other, said in (
        (config_of(name="own.module:Own", freeze="layer1"), "model.freeze: own.module:Own has no layer1"),
        (config_of({"layer_decay": 0.5}, name="own.module:Own"), "optimizer: own.module:Own has no layer1"),
    ):
        with pytest.raises(ConfigError, match=said):
            stage_of(model, other)
    with pytest.raises(ConfigError, match="has no linear layer of 3 outputs"):
        stage_of(Convolutional(CLASSES), config)


def test_rates_are_shown_in_a_line() -> None:
    assert trained_rates(config_of()) == {}
    rates = trained_rates(config_of({"head_lr_multiplier": 10.0}, freeze="stem,layer2"))
    assert rate_line(rates) == "layer1 0.1, layer3 to layer4 0.1, head 1"
    assert rate_line(trained_rates(config_of({"layer_decay": 0.5}, freeze="through:layer3"))) == "layer4 0.05, head 0.1"
