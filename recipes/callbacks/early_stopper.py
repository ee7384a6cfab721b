"""EarlyStopper: a resumed run stops where one that nobody interrupted does."""

from __future__ import annotations

from typing import Any

from composer.callbacks import EarlyStopper as StockEarlyStopper
from composer.core import Timestamp


class EarlyStopper(StockEarlyStopper):
    """Composer's EarlyStopper, with its best value and when it was reached in the checkpoints.

    Stock starts with neither after a resume, so that whatever comes next is the best so far, and patience starts anew.
    """

    def state_dict(self) -> dict[str, Any]:
        """The best value, and the epoch and batch that it is of; empty before the first."""
        if self.best is None or self.best_occurred is None:
            return {}
        when = self.best_occurred
        return {"best": self.best, "epoch": when.epoch.value, "batch": when.batch.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict()."""
        if state:
            self.best = state["best"]
            self.best_occurred = Timestamp(epoch=state["epoch"], batch=state["batch"])  # type: ignore[assignment]
