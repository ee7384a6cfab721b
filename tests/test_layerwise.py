"""LAMB and LARS against timm's classes, step by step."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from config import ConfigError, load
from main import main
from recipes.layerwise import Lamb, Lars
from tests.runs import assert_same_weights, metrics, small_yaml
from training import build


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(model[3].weight)  # a weight of norm 0 has a ratio of 1
    return model


def grouped(model: nn.Module) -> list[dict[str, Any]]:
    """Return groups as weight_decay_on=weights makes them."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": weights}, {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int, scale: float = 1.0) -> None:
    """Take one step on a batch that depends only on its number."""
    images = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    (scale * nn.functional.cross_entropy(model(images), torch.arange(16) % 3)).backward()
    optimizer.step()


def assert_same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.slow  # imports timm
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["as it is", "clipped"])
def test_lamb_is_timms(scale: float) -> None:
    """The numbers of "ResNet strikes back", while the learning rate changes."""
    from timm.optim import Lamb as Theirs

    arguments = {"lr": 5e-3, "eps": 1e-6, "weight_decay": 0.02}
    models = network(), network()
    ours, theirs = Lamb(grouped(models[0]), **arguments), Theirs(grouped(models[1]), foreach=False, **arguments)
    for number in range(30):
        for group in [*ours.param_groups, *theirs.param_groups]:
            group["lr"] = 5e-3 * (number % 7 + 1) / 7
        step(models[0], ours, number, scale)
        step(models[1], theirs, number, scale)
        assert_same(*models, rtol=2e-5, atol=1e-6)
    assert (models[0][0].weight - network()[0].weight).abs().max() > 0.02


@pytest.mark.slow  # imports timm
def test_lars_is_timms_with_the_rate_inside_the_momentum() -> None:
    """timm applies the rate after the momentum; a momentum scaled by the ratio of two rates moves it inside."""
    from timm.optim import Lars as Theirs

    arguments = {"lr": 1.0, "momentum": 0.9, "weight_decay": 5e-2}
    models = network(), network()
    ours = Lars(grouped(models[0]), eps=1e-8, **arguments)
    theirs = Theirs(grouped(models[1]), foreach=False, **arguments)
    before = 1.0
    for number in range(30):
        lr = 2.0 * (number % 7 + 1) / 7
        for group in ours.param_groups:
            group["lr"] = lr
        for group in theirs.param_groups:
            group["lr"], group["momentum"] = lr, 0.9 * before / lr
        step(models[0], ours, number)
        step(models[1], theirs, number)
        assert_same(*models, rtol=2e-5, atol=1e-6)
        before = lr


def test_lars_without_weight_decay_is_sgd() -> None:
    models = network(), network()
    ours, sgd = Lars(models[0].parameters(), lr=0.1), torch.optim.SGD(models[1].parameters(), lr=0.1, momentum=0.9)
    for number in range(10):
        step(models[0], ours, number)
        step(models[1], sgd, number)
    assert_same(*models, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Lamb, Lars])
def test_a_resumed_run_is_bit_exact(kind: type) -> None:
    straight, first = network(), network()
    optimizer, saved = kind(grouped(straight), weight_decay=0.1), kind(grouped(first), weight_decay=0.1)
    for number in range(8):
        step(straight, optimizer, number)
        if number < 4:
            step(first, saved, number)
    second = copy.deepcopy(first)
    resumed = kind(grouped(second))
    resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
    for number in range(4, 8):
        step(second, resumed, number)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", [Lamb, Lars])
def test_without_gradients_nothing_changes(kind: type) -> None:
    model = network()
    optimizer = kind(model.parameters(), weight_decay=0.1)
    optimizer.step()
    assert_same(model, network(), rtol=0, atol=0)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    optimizer.step()
    assert not torch.equal(model[0].weight, network()[0].weight) and torch.equal(model[3].bias, network()[3].bias)


def test_they_are_built_by_name() -> None:
    model = network()
    for name, kind, lr in (("lamb", Lamb, 5e-3), ("LARS", Lars, 10.5)):
        words = [f"optimizer={{name: {name}, lr: {lr}, weight_decay: 2.0e-4, weight_decay_on: weights}}"]
        config = load(["yamls/digits.yaml", "dry_run=true", *words]).config
        built = build.optimizer(config, model)
        assert type(built) is kind and [group["weight_decay"] for group in built.param_groups] == [2e-4, 0]
    for fault in ("name: lamb, max_grad_norm: 0", "name: lamb, betas: [0.9, 1.0]", "name: lars, trust: 0"):
        with pytest.raises(ConfigError, match=r"^optimizer\.\w+: .* given, but it must be"):
            load(["yamls/digits.yaml", "dry_run=true", f"optimizer={{lr: 1.0, {fault}}}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_a_run_goes_on_exactly_in_mid_epoch(name: str, workdir: Path, image_folder: Path, few_channels: None) -> None:
    """With a learning rate that changes once per epoch, so that it is that of the epoch's start."""
    yaml = str(small_yaml(workdir, image_folder, train_dataset__num_workers=0, eval_dataset__num_workers=0))
    optimizer = f"optimizer={{name: {name}, lr: 0.1, weight_decay: 0.01, weight_decay_on: weights}}"
    scheduler = "scheduler={name: whole_cosine_with_warmup, every: epoch, t_warmup: 1ep, alpha_i: 0.1}"
    words = [yaml, optimizer, scheduler, "max_duration=3ep", "save_num_checkpoints_to_keep=-1", "save_interval=3ba"]
    main(load([*words, "run_name=whole"])).close()
    main(load([*words, "run_name=second", "load_path=runs/whole/checkpoints/ep1-ba6-rank0.pt"])).close()
    ends = [workdir / f"runs/{run}/checkpoints/ep3-ba12-rank0.pt" for run in ("whole", "second")]
    assert_same_weights(*ends)
    cosine = [0.05 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    assert [float(row["lr"]) for row in metrics(workdir / "runs/whole")] == pytest.approx([0.01, *cosine[1:]])
