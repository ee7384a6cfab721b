"""Optimizers for large batches, whose steps are scaled by layer: LAMB and LARS, in foreach operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from recipes.declared import Declares
from recipes.optimizers import _advance, _Foreach


def _ratios(parameters: list[Tensor], updates: list[Tensor], ratio: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Return a function of each pair of norms, (weight, update); 1 where either is 0. Does not wait for the GPU."""
    weights, changes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
    both = (weights > 0) & (changes > 0)
    return list(torch.where(both, ratio(weights, changes), 1.0).unbind())


class Lamb(_Foreach, Declares, torch.optim.Optimizer):
    """LAMB as in timm, which "ResNet strikes back" used: Adam whose steps are as long as the layer's weights.

    The gradients are first clipped to a norm of max_grad_norm over all parameters. The step of a layer is u = m /
    (sqrt(v) + eps) + weight_decay w, with Adam's corrected moments; it is scaled by |w| / |u|, except in param groups
    without weight decay. Unlike in the paper, |w| has no upper bound.

    Args:
        lr: learning rate.
        betas: decay rates of the mean and of the mean square of the gradients.
        eps: added to the root of the mean square.
        weight_decay: coefficient of the weights in the step, before it is scaled.
        max_grad_norm: bound on the norm of all gradients together.
    """

    BOUNDS = {"betas": "at least 0 and less than 1, each", "eps": "at least 0", "max_grad_norm": "more than 0"}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm}
        super().__init__(params, defaults)
        self._norm: Tensor | None = None  # of all gradients of this step

    def _prepare(self, gradients: list[Tensor]) -> None:
        self._norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if gradients else None

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for step, equals in _advance(self, parameters, ("exp_avg", "exp_avg_sq")).items():
            self._update_equals(group, step, equals)

    def _update_equals(self, group: dict[str, Any], step: float, parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        excess = (cast(Tensor, self._norm) / group["max_grad_norm"]).clamp(min=1.0)
        gradients = torch._foreach_div([cast(Tensor, p.grad) for p in parameters], excess)
        means, squares = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_div_(denominators, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(means, 1 - beta1**step)
        torch._foreach_div_(updates, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(updates, _ratios(parameters, list(updates), torch.div))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


class Lars(_Foreach, Declares, torch.optim.Optimizer):
    """LARS as in MLPerf's reference: SGD whose steps are proportional to the norm of the layer's weights.

    g = (gradient + weight_decay w) trust |w| / (|gradient| + weight_decay |w| + eps), except in param groups without
    weight decay, which have plain SGD's. The learning rate is part of the momentum, unlike in torch and timm:
    m = momentum m + lr g; w -= m.

    Args:
        lr: learning rate.
        momentum: factor on the previous step.
        weight_decay: coefficient of the weights added to the gradients.
        trust: MLPerf's eta.
        eps: added to the norms. MLPerf's configurations set 0, for which its framework uses its own 1e-7.
    """

    BOUNDS = {"trust": "more than 0", "eps": "at least 0"}

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-7,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "eps": eps}
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        if not parameters:
            return
        updates: Any = [p.grad for p in parameters]
        if decay := group["weight_decay"]:
            trust, eps = group["trust"], group["eps"]
            scales = _ratios(parameters, updates, lambda w, g: trust * w / (g + decay * w + eps))
            updates = torch._foreach_add(updates, parameters, alpha=decay)
            torch._foreach_mul_(updates, scales)
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates, alpha=group["lr"])
        torch._foreach_add_(parameters, buffers, alpha=-1)
