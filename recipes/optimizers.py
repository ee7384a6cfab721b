"""Optimizers: Composer's with decoupled weight decay, in foreach operations; schedule-free ones; AccumAdam."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import torch
from composer.optim import DecoupledAdamW as StockDecoupledAdamW
from composer.optim import DecoupledSGDW as StockDecoupledSGDW
from schedulefree import AdamWScheduleFree as StockAdamWScheduleFree
from schedulefree import SGDScheduleFree as StockSGDScheduleFree
from torch import Tensor

from recipes.declared import Declares


class _Foreach:
    """Adds a step to an optimizer that updates all parameters of a group together."""

    param_groups: list[dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; `closure` computes gradients and returns the loss."""
        with torch.enable_grad():
            loss = closure() if closure else None
        self._prepare([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None])
        for group in self.param_groups:
            self._update(group, [p for p in group["params"] if p.grad is not None])
        return loss

    def _prepare(self, gradients: list[Tensor]) -> None:
        """Compute what the groups' updates share."""

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        raise NotImplementedError


def _decay(group: dict[str, Any], parameters: list[Tensor]) -> None:
    """Multiply the weights by 1 - weight_decay * lr / initial_lr."""
    if group["weight_decay"]:
        factor = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
        torch._foreach_mul_(parameters, 1 - factor * group["weight_decay"])


def _advance(
    optimizer: torch.optim.Optimizer, parameters: list[Tensor], moments: tuple[str, ...]
) -> dict[float, list[Tensor]]:
    """Advance the step count of each parameter, creating missing state; return the parameters by their step.

    Parameters that lack a gradient in some steps lag behind, and have another bias correction.
    """
    by_step: dict[float, list[Tensor]] = defaultdict(list)
    for p in parameters:
        state = optimizer.state[p]
        if "step" not in state:
            # On the CPU, unlike stock, because reading it must not wait for the GPU.
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name in moments:
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] += 1
        by_step[state["step"].item()].append(p)
    return by_step


class DecoupledSGDW(_Foreach, StockDecoupledSGDW):
    """SGD with momentum and a weight decay that follows the learning-rate schedule, but not the learning rate's size.

    A drop-in for composer.optim.DecoupledSGDW: same arguments, state and name in checkpoints, bit-identical on a CPU.
    The published weight_decay 5e-4 at lr 2.048 equals 2.44e-4 in torch.optim.SGD.
    """

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        if not parameters:
            return
        updates = self._updates(group, parameters, [cast(Tensor, p.grad) for p in parameters])
        _decay(group, parameters)
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _updates(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Return the gradients with momentum, to be subtracted times lr."""
        if not group["momentum"]:
            for p in parameters:
                self.state[p]["momentum_buffer"] = None
            return gradients
        known = [i for i, p in enumerate(parameters) if self.state[p].get("momentum_buffer") is not None]
        buffers = [self.state[parameters[i]]["momentum_buffer"] for i in known]
        if buffers:
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, [gradients[i] for i in known], alpha=1 - group["dampening"])
        for i in set(range(len(parameters))) - set(known):
            self.state[parameters[i]]["momentum_buffer"] = gradients[i].detach().clone()
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"])) if group["nesterov"] else buffers


class DecoupledAdamW(_Foreach, StockDecoupledAdamW):
    """Adam with such a weight decay; a drop-in for composer.optim.DecoupledAdamW in the same sense."""

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        group.setdefault("initial_lr", group["lr"])
        moments = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        ready = [p for p in parameters if p.requires_grad]
        for step, equals in _advance(self, ready, moments).items():
            self._update_equals(group, step, equals)

    def _update_equals(self, group: dict[str, Any], step: float, parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        _decay(group, parameters)
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        if group["amsgrad"]:
            greatest = [self.state[p]["max_exp_avg_sq"] for p in parameters]
            torch._foreach_maximum_(greatest, squares)
            squares = greatest
        denominators = list(torch._foreach_sqrt(squares))
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**step))
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(parameters, means, denominators, value=-group["lr"] / (1 - beta1**step))


class _ScheduleFree(Declares):
    """Requirements and conflicts of schedule-free optimizers."""

    RULES = {
        "config.scheduler.name == 'constant_with_warmup'": (
            "scheduler.name: {config.scheduler.name} changes the learning rate over the run, which "
            "{config.optimizer[name]} replaces by averaging its weights; type scheduler.name=constant_with_warmup"
        ),
        "not (config.optimizer.get('warmup_steps') and duration(config.scheduler.t_warmup).value)": (
            "optimizer.warmup_steps: is added to scheduler.t_warmup={config.scheduler.t_warmup}; type "
            "optimizer.warmup_steps=0, or scheduler.t_warmup=0ba"
        ),
        # Gradients are taken strictly between the averaged weights and those that are stepped.
        "0 < config.optimizer.get('betas', (0.9,))[0] < 1": (
            "optimizer.betas: {config.optimizer[betas]} given, but the first must be more than 0 and less than 1"
        ),
    }
    NOT_WITH = {
        "ema": "it averages weights that the optimizer averages already",
        "swa": "it averages weights that the optimizer averages already",
        "decentralized": "it averages the ranks' weights, but not the optimizer's state from which they are computed",
    }
    NEEDS = {"schedule_free": "it evaluates other weights than it trains, and nothing switches them"}


class SGDScheduleFree(StockSGDScheduleFree, _ScheduleFree):
    """Schedule-free SGD of the package `schedulefree`; needs the algorithm schedule_free, which switches its weights.

    The warm-up is the schedule's (scheduler.t_warmup); warmup_steps would add to it.
    """

    BOUNDS = {"momentum": "more than 0 and less than 1, as in 0.9"}


class AdamWScheduleFree(StockAdamWScheduleFree, _ScheduleFree):
    """Schedule-free AdamW of the same package, used in the same way."""


class AccumAdam(_Foreach, Declares, torch.optim.Optimizer):
    """Adam for small batches on many ranks: updates its moments once in accum_iter steps (Wang et al., 2410.11998).

    In between, each step combines its gradient g with the frozen moments: it moves along (m + (1 - beta1) g) / sqrt(v +
    (1 - beta2) g^2). After accum_iter steps, m and v take in the mean of the gradients. With accum_iter 1 this is Adam.
    The numbers equal those of the decent-dp package, in which weight decay changes the gradients in place.

    Args:
        lr: learning rate. Published with decentralized training: 1.5e-3, where 1e-3 was Adam's with AllReduce.
        betas: decay rates of the mean and of the mean square of the gradients.
        eps: added to the root of the mean square.
        weight_decay: coefficient of the weights added to the gradients (coupled, as in torch.optim.Adam).
        accum_iter: steps between two updates of the moments; more for more ranks. Published: 8 for 32 ranks.
    """

    BOUNDS = {"betas": "at least 0 and less than 1, each", "accum_iter": "at least 1"}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        accum_iter: int = 4,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "accum_iter": accum_iter}
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for step, equals in _advance(self, parameters, ("exp_avg", "exp_avg_sq", "accum_grad")).items():
            self._update_equals(group, int(step), equals)

    def _update_equals(self, group: dict[str, Any], step: int, parameters: list[Tensor]) -> None:
        (beta1, beta2), period = group["betas"], group["accum_iter"]
        gradients: Any = [p.grad for p in parameters]
        means, squares, sums = (
            [self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "accum_grad")
        )
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_add_(sums, gradients, alpha=1 / period)
        moved = -(-step // period)  # updates of the moments, including the pending one
        numerators = torch._foreach_add(means, gradients, alpha=1 - beta1)
        denominators = torch._foreach_addcmul(squares, gradients, gradients, value=1 - beta2)
        torch._foreach_sqrt_(denominators)
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**moved))
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(parameters, numerators, denominators, value=-group["lr"] / (1 - beta1**moved))
        if step % period == 0:  # stored with the next step's decay applied
            torch._foreach_add_(means, sums, alpha=1 - beta1)
            torch._foreach_mul_(means, beta1)
            torch._foreach_addcmul_(squares, sums, sums, value=1 - beta2)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_zero_(sums)
