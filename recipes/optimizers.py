"""Optimizers: Composer's with decoupled weight decay, in fused operations; schedule-free ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from composer.optim import DecoupledAdamW as StockDecoupledAdamW
from composer.optim import DecoupledSGDW as StockDecoupledSGDW
from schedulefree import AdamWScheduleFree as StockAdamWScheduleFree
from schedulefree import SGDScheduleFree as StockSGDScheduleFree
from torch import Tensor


def _loss_of(closure: Callable[[], Any] | None) -> Any:
    """The closure's loss, computed with gradients."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _decay(group: dict[str, Any], parameters: list[Tensor]) -> None:
    """Multiply the weights by 1 - weight_decay * lr / initial_lr."""
    if group["weight_decay"]:
        factor = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
        torch._foreach_mul_(parameters, 1 - factor * group["weight_decay"])


class DecoupledSGDW(StockDecoupledSGDW):
    """SGD with momentum, and a weight decay that follows the schedule of the learning rate but not its size.

    A drop-in for composer.optim.DecoupledSGDW: the same arguments, the same state, the same bits on a CPU, the same
    name in checkpoints. In terms of torch.optim.SGD, weight_decay 5e-4 at lr 2.048 (published) is 2.44e-4.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: computes gradients and returns the loss.
        """
        loss = _loss_of(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = self._updates(group, parameters, [p.grad for p in parameters])
            _decay(group, parameters)
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss

    def _updates(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """What is subtracted, times lr: the gradients with their momentum."""
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


class DecoupledAdamW(StockDecoupledAdamW):
    """Adam with the same kind of weight decay; a drop-in for composer.optim.DecoupledAdamW in the same way."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: computes gradients and returns the loss.
        """
        loss = _loss_of(closure)
        for group in self.param_groups:
            group.setdefault("initial_lr", group["lr"])
            # Parameters without a gradient now and then are at another step, with another bias correction.
            by_step: dict[float, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None and p.requires_grad:
                    by_step[self._count(p, group["amsgrad"])].append(p)
            for step, parameters in by_step.items():
                self._update(group, step, parameters)
        return loss

    def _count(self, p: Tensor, amsgrad: bool) -> float:
        """Advance the parameter's step, making its state first if it has none."""
        state = self.state[p]
        if "step" not in state:
            # On the CPU, unlike stock: its value is needed there, and reading it must not wait for the GPU.
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name in ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ())):
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["step"] += 1
        return state["step"].item()

    def _update(self, group: dict[str, Any], step: float, parameters: list[Tensor]) -> None:
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


class SGDScheduleFree(StockSGDScheduleFree):
    """Schedule-free SGD of the package `schedulefree`; to be used with the algorithm schedule_free, which switches it.

    Its warm-up is the schedule's (scheduler.t_warmup); warmup_steps would come on top of that.
    """


class AdamWScheduleFree(StockAdamWScheduleFree):
    """Schedule-free AdamW of the same package, in the same way."""
