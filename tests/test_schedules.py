"""Learning rates and momenta, compared with torch's schedulers and the published table, and weight decay groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR
from torchvision.models import resnet50

from config import ConfigError, load
from recipes.schedules import learning_rate, momentum
from training import build, guards

PUBLISHED = {
    1: 0.00884,
    5: 0.04900,
    10: 0.13300,
    15: 0.17500,
    20: 0.16633,
    25: 0.14206,
    30: 0.10697,
    35: 0.06803,
    40: 0.03295,
    45: 0.00867,
    48: 0.00141,
    50: 0.0000007,
}
"""Learning rate after each epoch of the published one-cycle run, at 2860 batches per epoch."""


def scheduler_of(recipe: str, *words: str) -> tuple[SimpleNamespace, float]:
    """Return a recipe's scheduler section and its peak learning rate for ImageNet."""
    config = load(["yamls/resnet50.yaml", f"recipe_name={recipe}", *words, "dry_run=true"]).config
    return config.scheduler, config.optimizer["lr"]


def trace(make: Callable[[torch.optim.Optimizer], object], optimizer: torch.optim.Optimizer, steps: int):
    """Return the (learning rate, momentum) of each step, as torch's scheduler sets them."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR steps with a deprecated argument
        scheduler = make(optimizer)
        for _ in range(steps):
            group = optimizer.param_groups[0]
            found.append((group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]))
            optimizer.step()
            scheduler.step()
    return found


@pytest.mark.parametrize("recipe", ["adam", "sgd"])
@pytest.mark.parametrize("per_epoch", [13, 40])
def test_adam_and_sgd_follow_torchs_schedulers(recipe: str, per_epoch: int) -> None:
    """LinearLR from 1 % over 5 epochs, then CosineAnnealingLR over 85 to the absolute 1e-5, step by step."""
    section, lr = scheduler_of(recipe)
    warmup, total = 5 * per_epoch, 90 * per_epoch

    def torchs(optimizer: torch.optim.Optimizer) -> SequentialLR:
        rise = LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
        fall = CosineAnnealingLR(optimizer, T_max=total - warmup, eta_min=1e-5)
        return SequentialLR(optimizer, [rise, fall], milestones=[warmup])

    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    ours = learning_rate(section, lr, total, warmup)
    for step, (expected, _) in enumerate(trace(torchs, optimizer, total)):
        assert lr * ours(step) == pytest.approx(expected, rel=1e-9, abs=1e-12), step
    assert lr * ours(0) == pytest.approx(0.01 * lr) and lr * ours(total) == pytest.approx(1e-5)


def test_one_cycle_is_the_published_table() -> None:
    section, lr = scheduler_of("onecycle")
    ours = learning_rate(section, lr, 50 * 2860, 0)
    for epoch, published in PUBLISHED.items():
        assert lr * ours(epoch * 2860 - 1) == pytest.approx(published, abs=1e-5), epoch
    momenta = momentum(section, 50 * 2860)
    assert [round(momenta(epoch * 2860 - 1), 4) for epoch in (1, 15, 50)] == [0.9489, 0.85, 0.95]


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("words", [[], ["scheduler.pct_start=0.45", "scheduler.div_factor=10", "optimizer.lr=1.5"]])
def test_one_cycle_is_torchs(kind: type, words: list[str]) -> None:
    section, lr = scheduler_of("onecycle", *words)
    optimizer = kind([nn.Parameter(torch.zeros(1))], lr=lr, **({"momentum": 0.9} if kind is SGD else {}))

    def torchs(optimizer: torch.optim.Optimizer) -> OneCycleLR:
        factors = {"div_factor": section.div_factor, "final_div_factor": section.final_div_factor}
        return OneCycleLR(optimizer, max_lr=lr, total_steps=371, pct_start=section.pct_start, **factors)

    rates, momenta = learning_rate(section, lr, 371, 0), momentum(section, 371)
    for step, (rate, expected) in enumerate(trace(torchs, optimizer, 370)):
        assert lr * rates(step) == pytest.approx(rate, rel=1e-9) and momenta(step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_the_guard_sets_both_at_each_step(kind: type) -> None:
    optimizer = kind([nn.Parameter(torch.zeros(1))], lr=2.0, **({"momentum": 0.9} if kind is SGD else {}))
    optimizer.param_groups[0]["initial_lr"] = 2.0
    guard = guards.ExactSchedule(lambda step: step / 10, lambda step: 1 - step / 10)
    state = SimpleNamespace(optimizers=[optimizer], timestamp=SimpleNamespace(batch=SimpleNamespace(value=3)))
    guard.batch_start(state, None)
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.6)
    assert (group["momentum"] if kind is SGD else group["betas"]) == (0.7 if kind is SGD else (0.7, 0.999))


def test_a_shorter_run_keeps_the_shape() -> None:
    section, lr = scheduler_of("onecycle")
    long, short = (learning_rate(section, lr, 2860 * epochs, 0) for epochs in (50, 25))
    for part in (0.1, 0.3, 0.6, 0.9):
        assert long(part * 2860 * 50) == pytest.approx(short(part * 2860 * 25), abs=1e-3)


def test_only_weights_decay() -> None:
    """In a ResNet-50: 53 convolutions and the classifier's weight, not the BatchNorms."""
    model = resnet50()
    config = load(["yamls/resnet50.yaml", "recipe_name=adam", "dry_run=true"]).config
    optimizer = build.optimizer(config, model)
    decayed, spared = (group["params"] for group in optimizer.param_groups)
    assert len(decayed) == 54 and all(parameter.ndim > 1 for parameter in decayed)
    assert len(spared) == 2 * 53 + 1 and all(parameter.ndim == 1 for parameter in spared)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(1 / 32768), 0.0]
    config.optimizer |= {"lr": 0.5, "weight_decay": 0.25}
    build.set_hyperparameters(optimizer, config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("rule", "decayed", "spared"),
    [("all", 161, 0), ("weights", 54, 107), ("not_norm", 55, 106), ("not_named_bn", 63, 98)],
)
def test_rules_of_weight_decay(rule: str, decayed: int, spared: int) -> None:
    """In a ResNet-50; by name, the BatchNorms of the 4 shortcuts (8 tensors) and the classifier's bias decay."""
    model = resnet50()
    config = load(["yamls/resnet50.yaml", f"optimizer.weight_decay_on={rule}", "dry_run=true"]).config
    groups = {bool(group["weight_decay"]): group["params"] for group in build.optimizer(config, model).param_groups}
    assert (len(groups[True]), len(groups.get(False, []))) == (decayed, spared)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shortcuts = [p for p in groups[True] if "downsample.1" in names[id(p)]]
    if rule in ("all", "not_named_bn"):
        assert len(shortcuts) == 8 and sum(p.numel() for p in shortcuts) == 7680
    else:
        assert not shortcuts
    assert any(p is model.fc.bias for p in groups[True]) == (rule != "weights")


@pytest.mark.parametrize(
    "words, said",
    [
        (["optimizer.lr=0"], "optimizer.lr: 0 given, but the peak of one_cycle must be"),
        (["optimizer.lr=-0.1"], "optimizer.lr: -0.1 given"),
        (["scheduler.pct_start=1.5"], "scheduler.pct_start: 1.5 given"),
        (["scheduler.pct_start=0"], "as in scheduler.pct_start=0.3"),
        (["scheduler.div_factor=0.5"], "scheduler.div_factor: 0.5 given"),
        (["scheduler.base_momentum=0.99"], "0.99 and scheduler.max_momentum=0.95 given"),
        (["optimizer={name: rprop, lr: 0.1}"], "rprop has no momentum to cycle; type scheduler.base_momentum=null"),
        (["scheduler.alpha_i=2"], "scheduler.alpha_i: 2 given"),
        (["scheduler.eta_min=1"], "scheduler.eta_min: 1 given, but it must be from 0 to optimizer.lr (0.175)"),
        (["optimizer.weight_decay_on=convolutions"], "unknown value 'convolutions' (choose all, weights,"),
    ],
)
def test_impossible_curves_are_rejected(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["yamls/resnet50.yaml", "recipe_name=onecycle", *words, "dry_run=true"])
    assert said in str(caught.value)
