"""SAM: sharpness-aware minimization that leaves the optimizer's state and checkpoints intact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from composer.core import Event, State
from composer.loggers import Logger
from composer.utils import ensure_tuple
from torch import Tensor
from torch.optim import Optimizer

from recipes.algorithms._base import RecipeAlgorithm, Start


class SAMStep(Optimizer):
    """A parent class that SAM adds to an optimizer's class, whose step ascends first in batches where SAM is due.

    The optimizer remains the same object with the same state_dict; SAM saves nothing.
    """

    sam: SAM
    _step_supports_amp_closure = True  # makes Composer use closures, and its ClosureGradScaler, under fp16 too

    def step(self, closure: Callable[..., Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Composer's forward and backward pass; takes `ddp_sync` and `loss_dict`, and returns the loss, or
                None, which skips the step, if fp16 gradients are not finite. Without a closure this is a step of the
                base optimizer, as torch.distributed.checkpoint takes to create the state.
        """
        self._opt_called = True  # torch's schedulers check this; see the attributes of `step` below
        if closure is None:
            return super().step()
        if not self.sam.due:
            loss = closure()
            if loss is not None:
                super().step()
            return loss
        # As published, each rank ascends along its own gradient.
        loss = closure(ddp_sync=False)
        if loss is not None and self._gradient_from_above(closure):
            super().step()
        return loss

    def _gradient_from_above(self, closure: Callable[..., Any]) -> bool:
        """Replace the gradients by those at weights + rho * gradient / |gradient|; return whether they are finite."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        saved = [p.detach().clone() for p in moved]
        try:
            self._climb(moved)
            return closure(loss_dict={}) is not None  # discard these losses: the first pass's are logged
        finally:
            # Copy instead of computing w + e - e, so that the weights are restored exactly, also if the pass ran out of
            # memory and the Trainer is about to retry.
            with torch.no_grad():
                torch._foreach_copy_(moved, saved)

    @torch.no_grad()
    def _climb(self, parameters: list[Tensor]) -> None:
        gradients = [cast(Tensor, p.grad) for p in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # In place, because the second pass discards these gradients.
        torch._foreach_mul_(gradients, self.sam.rho / (norm + self.sam.epsilon))
        torch._foreach_add_(parameters, gradients)

    # torch wraps `step` to run hooks, and its schedulers wrap it to record calls. The base class's step is wrapped
    # already and this one sets _opt_called, so mark it as wrapped; otherwise hooks would run twice.
    step.hooked = True  # type: ignore[attr-defined]
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class SAM(RecipeAlgorithm):
    """Descends along the gradient at the worst weights nearby (Foret et al. 2020, https://arxiv.org/abs/2010.01412).

    Computes the same as Composer's SAM, but resumes bit for bit. Stock's checkpoints lack the momentum, its interval
    restarts at 0, and it leaves the weights displaced if the second pass runs out of memory. Here the optimizer gets a
    subclass of its own class at Event.INIT, and the position in the interval follows from the batch number.

    Args:
        rho: radius, at least 0. Published: .5, with interval 10 (medium) and 5 (hot).
        epsilon: added to the norm of the gradient.
        interval: SAM acts on every interval-th batch, which takes twice as long.
    """

    events = (Event.INIT, Event.BATCH_START)
    BOUNDS = {"rho": "at least 0", "epsilon": "at least 0", "interval": "at least 1"}
    NO_LR_FIND = "computes the loss at other weights"

    def __init__(self, rho: float = 0.05, epsilon: float = 1e-12, interval: int = 1) -> None:
        self.rho = rho
        self.epsilon = epsilon
        self.interval = interval
        self.due = False

    def first_effect(self) -> list[Start]:
        """Return the last batch of the first interval."""
        return [Start("interval", f"{self.interval}ba", Event.BATCH_END)]

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Change the optimizers' class, or determine whether SAM is due in this batch."""
        if event == Event.BATCH_START:
            self.due = (state.timestamp.batch.value + 1) % self.interval == 0
            return
        for optimizer in ensure_tuple(state.optimizers):
            base = type(optimizer)
            names = {"__qualname__": base.__qualname__, "__module__": base.__module__, "__doc__": base.__doc__}
            optimizer.__class__ = type(base.__name__, (SAMStep, base), names)
            # A torch scheduler created earlier has set a wrapper of the base class's step on the instance.
            vars(optimizer).pop("step", None)
            cast(SAMStep, optimizer).sam = self
