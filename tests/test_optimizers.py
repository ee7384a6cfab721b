"""The fused optimizers compute Composer's results bitwise."""

from __future__ import annotations

import copy

import pytest
import torch
from composer import optim as stock
from torch import nn

from recipes import optimizers as ours


def trained(package, name: str, steps: int = 20, **arguments):
    """Train a small network with a changing lr; some steps leave a parameter without a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3))
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[2:].parameters()), "lr": 0.02}]
    optimizer = getattr(package, name)(groups, **arguments)
    for step in range(steps):
        optimizer.zero_grad()
        hidden = model[2](model[1](model[0](torch.randn(4, 6))))
        (hidden if step % 3 == 0 else model[3](hidden)).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        optimizer.step()
    return model, optimizer


SGD = {"lr": 0.1}
CASES = [
    ("DecoupledSGDW", SGD),
    ("DecoupledSGDW", {**SGD, "weight_decay": 5e-4}),
    ("DecoupledSGDW", {**SGD, "momentum": 0.875, "weight_decay": 5e-4}),
    ("DecoupledSGDW", {**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    ("DecoupledSGDW", {**SGD, "momentum": 0.9, "dampening": 0.1}),
    ("DecoupledAdamW", {"lr": 0.01}),
    ("DecoupledAdamW", {"lr": 0.01, "weight_decay": 0.0, "amsgrad": True, "betas": (0.8, 0.99)}),
]


@pytest.mark.parametrize("name, arguments", CASES)
def test_twenty_steps_equal_composers_bitwise(name, arguments):
    (one, theirs), (other, own) = (trained(package, name, **arguments) for package in (stock, ours))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    expected, found = theirs.state_dict(), own.state_dict()
    assert expected["param_groups"] == found["param_groups"]
    assert expected["state"].keys() == found["state"].keys()
    for index, slots in expected["state"].items():
        assert slots.keys() == found["state"][index].keys()
        for key, value in slots.items():
            mine = found["state"][index][key]
            assert mine is None if value is None else torch.equal(value, mine)


@pytest.mark.parametrize("name, arguments", [CASES[2], CASES[5]])
def test_checkpoints_interchange(name, arguments):
    """Composer finds the state by the class name; trained on from the other's state, either takes the other's step."""
    assert getattr(ours, name).__qualname__ == name and issubclass(getattr(ours, name), getattr(stock, name))
    (model, theirs), (other, own) = (trained(package, name, **arguments) for package in (stock, ours))
    states = theirs.state_dict(), own.state_dict()
    own.load_state_dict(copy.deepcopy(states[0]))
    theirs.load_state_dict(copy.deepcopy(states[1]))
    before = [p.detach().clone() for p in model.parameters()]
    theirs.step()
    own.step()
    for a, b, c in zip(model.parameters(), other.parameters(), before, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("name, arguments", [CASES[2], CASES[5]])
def test_a_closure_computes_the_gradients(name, arguments):
    """Gradients are enabled in the closure, and step() returns its loss."""
    model, optimizer = trained(ours, name, steps=1, **arguments)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 6)).square().sum()
        loss.backward()
        return loss.item()

    before = [p.detach().clone() for p in model.parameters()]
    assert optimizer.step(closure) > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()  # without gradients, nothing changes
