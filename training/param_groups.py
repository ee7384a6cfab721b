"""Which parameters a run trains, and at which learning rate: frozen stages, and the optimizer's param groups."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from config import ConfigError
from config.schema import AUTO, HEAD_LR_MULTIPLIER, LAYER_DECAY, WEIGHT_DECAY_ON, Config
from config.stages import BACKBONE, HEAD, STAGES, STEM, frozen, frozen_line, multipliers, rate_line, trained_rates
from model import head_of
from recipes import frozen_batchnorm
from recipes.algorithms._base import unwrapped

NORM = (_NormBase, nn.LayerNorm, nn.GroupNorm)
MULTIPLIER, DECAYS = "lr_multiplier", "decays"  # keys of a param group beside torch's


def freeze(model: nn.Module, config: Config) -> None:
    """Freeze, in place and before any surgery, what model.freeze and model.freeze_batchnorm name.

    Raises:
        ConfigError: the model lacks the stages or the head.
    """
    values = config.model
    stages, every = frozen(values.freeze), values.freeze_batchnorm is True
    if not (stages or every):
        return
    stage = stage_of(model, config)
    network = network_of(model)
    for name, parameter in network.named_parameters():
        if stage(name) in stages:
            parameter.requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and (every or (values.freeze_batchnorm == AUTO and stage(name) in stages)):
            frozen_batchnorm.freeze(module)


def network_of(model: nn.Module) -> nn.Module:
    """Return the network in a ComposerModel and its wrappers, or a bare network itself."""
    inner = unwrapped(model)
    return getattr(inner, "module", inner)


def stage_of(model: nn.Module, config: Config) -> Callable[[str], str]:
    """Return a function from the name of a parameter or module to its stage; it stays valid after surgery.

    All that is in no layer and not in the head belongs to the stem.

    Raises:
        ConfigError: the run treats stages differently, and the model has none.
    """
    network, values = network_of(model), config.model
    if values.freeze is not None:
        key, instead, by_stage = "model.freeze", "model.freeze=null", values.freeze != BACKBONE
    else:
        key, instead = "optimizer", f"optimizer.{LAYER_DECAY}=1 optimizer.{HEAD_LR_MULTIPLIER}=1"
        by_stage = (config.optimizer.get(LAYER_DECAY) or 1) != 1
    is_tuned = values.freeze is not None or bool(trained_rates(config))
    head = head_of(network, values.classes) if is_tuned else None
    if is_tuned and head is None:
        raise ConfigError(
            f"{key}: {values.name} has no linear layer of {values.classes} outputs, so its head is unknown; "
            f"type {instead}"
        )
    if by_stage and (missing := [stage for stage in STAGES if stage != STEM and not hasattr(network, stage)]):
        raise ConfigError(f"{key}: {values.name} has no {missing[0]}, so its stages are unknown; type {instead}")

    def stage(name: str) -> str:
        top = name.partition(".")[0]
        return HEAD if head and f"{name}.".startswith(f"{head}.") else top if top in STAGES else STEM

    return stage


class Grouping:
    """Keeps the param groups of an optimizer as configured, through the surgery of Composer's algorithms.

    Composer adds parameters only to an optimizer of a single group. So there is one, from when this is built until
    `split` is called, after the surgery.
    """

    def __init__(self, config: Config, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.config, self.optimizer = config, optimizer
        self.stage = stage_of(model, config)
        optimizer.param_groups[0]["params"] = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        del optimizer.param_groups[1:]

    def split(self, model: nn.Module) -> None:
        """Divide the parameters into groups of the same learning rate and weight decay.

        Called again after a checkpoint was loaded, it restores what the configuration says.
        """
        held = {id(p): (p, group) for group in self.optimizer.param_groups for p in group["params"]}
        rule = self.config.optimizer.get(WEIGHT_DECAY_ON, "all")
        factors = multipliers(self.config)
        groups: dict[tuple[float, bool], list[tuple[nn.Parameter, dict[str, Any]]]] = {}
        for path, module in network_of(model).named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                full = f"{path}.{name}".lstrip(".")
                if id(parameter) in held:
                    key = factors[self.stage(full)], _decays(rule, full, module)
                    groups.setdefault(key, []).append(held.pop(id(parameter)))
        if held:  # a loss with parameters
            groups.setdefault((1.0, True), []).extend(held.values())
        self.optimizer.param_groups[:] = [self._group(members, *key) for key, members in groups.items()]

    def _group(self, members: list[tuple[nn.Parameter, dict[str, Any]]], factor: float, decays: bool) -> dict[str, Any]:
        # The former group holds what schedule-free optimizers count; one from a checkpoint may lack settings.
        group = {**self.optimizer.defaults, **members[0][1], "params": [parameter for parameter, _ in members]}
        for key in (MULTIPLIER, DECAYS):
            group.pop(key, None)
        if "weight_decay" in group:
            group["weight_decay"] = self.optimizer.defaults["weight_decay"]
        if not decays:
            group |= {"weight_decay": 0.0, DECAYS: False}
        return group if factor == 1 else {**group, MULTIPLIER: factor}


def _decays(rule: str, name: str, module: nn.Module) -> bool:
    """Return whether a rule of config.schema.DECAYED decays a parameter of a module."""
    if rule == "not_named_bn":
        return "bn" not in name
    spared = isinstance(module, NORM) and rule != "all"
    # Nor class tokens, position embeddings, scales of layers and the like: only what is called a weight.
    return not spared and not (rule == "weights" and not name.endswith("weight"))


def set_hyperparameters(optimizer: torch.optim.Optimizer, config: Config) -> None:
    """Set every param group's hyperparameters as configured: the command line overrides those in a checkpoint."""
    numbers = {key: value for key, value in config.optimizer.items() if isinstance(value, int | float)}
    for group in optimizer.param_groups:
        kept = () if group.get(DECAYS, True) else ("weight_decay",)
        group.update({key: value for key, value in numbers.items() if key in group and key not in kept})
        group["lr"] = group["initial_lr"] = numbers["lr"] * group.get(MULTIPLIER, 1)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the present step, before the multipliers of param groups."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get(MULTIPLIER, 1)


def trained(model: nn.Module, config: Config) -> dict[str, Any]:
    """Return how many parameters of a model after surgery are trained, and at which peak rates, for the run's record.

    Empty if all are, at the same rate.
    """
    what, rates = frozen_line(config), trained_rates(config)
    parameters = [*network_of(model).parameters()]
    numbers = {
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "parameters": sum(p.numel() for p in parameters),
    }
    return {**numbers, "frozen": what, "learning_rates": rates} if what or rates else {}


def trained_line(facts: dict[str, Any]) -> str:
    """Return the facts of `trained` as a line."""
    number, whole = facts["trained_parameters"], facts["parameters"]
    words = [f"training {number:,} of {whole:,} parameters" if number < whole else f"training all {whole:,} parameters"]
    if facts["frozen"]:
        words.append(f"frozen: {facts['frozen']}")
    if facts["learning_rates"]:
        words.append(f"learning rates: {rate_line(facts['learning_rates'])}")
    return "; ".join(words)
