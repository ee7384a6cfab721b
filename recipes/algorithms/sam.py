"""SAM: sharpness-aware minimisation that keeps, saves and resumes the optimizer it works with."""

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
    """A second parent class that SAM gives to an optimizer: its step climbs first, where SAM is due.

    The optimizer stays the same object with the same state and the same state_dict; nothing of SAM's is saved.
    """

    sam: SAM
    _step_supports_amp_closure = True  # Composer then uses closures, and its ClosureGradScaler, under fp16 too.

    def step(self, closure: Callable[..., Any] | None = None) -> Any:
        """One step.

        Args:
            closure: Composer's, a forward and a backward pass; it takes `ddp_sync` and `loss_dict`, and returns the
                loss, or None where fp16 gradients were not finite. Without one this is a plain step of the base
                optimizer (as torch.distributed.checkpoint takes to create its state).

        Returns:
            The loss at the weights before the step; None means that the step was skipped.
        """
        self._opt_called = True  # What torch's schedulers look for: see the marks below.
        if closure is None:
            return super().step()
        if not self.sam.due:
            loss = closure()
            if loss is not None:
                super().step()
            return loss
        # As published, each rank climbs along its own gradient.
        loss = closure(ddp_sync=False)
        if loss is not None and self._gradient_from_above(closure):
            super().step()
        return loss

    def _gradient_from_above(self, closure: Callable[..., Any]) -> bool:
        """Replace the gradients by those at weights + rho * gradient / |gradient|; False if they are not finite."""
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        saved = [p.detach().clone() for p in moved]
        try:
            self._climb(moved)
            return closure(loss_dict={}) is not None  # Its own dictionary: the logged loss is that of the first pass.
        finally:
            # Copies, not w + e - e: the weights return to the very bits that they were, on every rank and also when
            # the pass ran out of memory and the Trainer is about to try again.
            with torch.no_grad():
                torch._foreach_copy_(moved, saved)

    @torch.no_grad()
    def _climb(self, parameters: list[Tensor]) -> None:
        gradients = [cast(Tensor, p.grad) for p in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # In place: the second pass discards these gradients anyway.
        torch._foreach_mul_(gradients, self.sam.rho / (norm + self.sam.epsilon))
        torch._foreach_add_(parameters, gradients)

    # torch wraps an optimizer's step for its hooks, and its schedulers wrap it to see that it was called. The base
    # class's step is wrapped already, and this one sets _opt_called itself; wrapped again, hooks would run twice.
    step.hooked = True  # type: ignore[attr-defined]
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class SAM(RecipeAlgorithm):
    """Steps along the gradient of the worst weights nearby (Foret et al. 2020, https://arxiv.org/abs/2010.01412).

    It works as Composer's SAM and resumes bit for bit: stock replaces the optimizer by a wrapper whose checkpoints
    lack the momentum and whose interval restarts at 0, and leaves the weights displaced when the second pass runs out
    of memory. Here the optimizer gets a subclass of its own class (Event.INIT, before any checkpoint is loaded) and
    the position in the interval follows from the number of the batch.

    Args:
        rho: the distance, at least 0. Published: .5 with interval 10 (medium) and with interval 5 (hot).
        epsilon: added to the norm of the gradient.
        interval: SAM acts on every interval-th batch; such a batch takes twice as long.
    """

    BOUNDS = {"rho": "at least 0", "epsilon": "at least 0", "interval": "at least 1"}
    NO_LR_FIND = "its loss is that of other weights"

    def __init__(self, rho: float = 0.05, epsilon: float = 1e-12, interval: int = 1) -> None:
        self.rho = rho
        self.epsilon = epsilon
        self.interval = interval
        self.due = False

    def first_effect(self) -> list[Start]:
        """In the last batch of the first interval."""
        return [Start("interval", f"{self.interval}ba", Event.BATCH_END)]

    def match(self, event: Event, state: State) -> bool:
        """On Event.INIT and at every batch."""
        return event in (Event.INIT, Event.BATCH_START)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Change the optimizers' class, or find out whether this batch is one of SAM's."""
        if event == Event.BATCH_START:
            self.due = (state.timestamp.batch.value + 1) % self.interval == 0
            return
        for optimizer in ensure_tuple(state.optimizers):
            base = type(optimizer)
            names = {"__qualname__": base.__qualname__, "__module__": base.__module__, "__doc__": base.__doc__}
            optimizer.__class__ = type(base.__name__, (SAMStep, base), names)
            # A torch scheduler made earlier has put a wrapper of the base class's step onto the object.
            vars(optimizer).pop("step", None)
            cast(SAMStep, optimizer).sam = self
