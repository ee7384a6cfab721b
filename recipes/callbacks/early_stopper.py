"""EarlyStopper: a resumed run stops at the same point as an uninterrupted one."""

from __future__ import annotations

from typing import Any

from composer.callbacks import EarlyStopper as StockEarlyStopper
from composer.core import Timestamp


class EarlyStopper(StockEarlyStopper):
    """Composer's EarlyStopper, with the best value and its time saved in checkpoints.

    Stock forgets both on resume: the next value becomes the best, and patience restarts.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the best value with its epoch and batch; empty before the first evaluation."""
        if self.best is None or self.best_occurred is None:
            return {}
        when = self.best_occurred
        return {"best": self.best, "epoch": when.epoch.value, "batch": when.batch.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict()."""
        if state:
            self.best = state["best"]
            self.best_occurred = Timestamp(epoch=state["epoch"], batch=state["batch"])  # type: ignore[assignment]
