"""CutOut: squares of the images masked, where zero is the mean color."""

from __future__ import annotations

from composer.algorithms.cutout import CutOut as StockCutOut
from composer.core import Event, State


class CutOut(StockCutOut):
    """Composer's CutOut (DeVries and Taylor 2017, arXiv 1708.04552), on normalized microbatches.

    Stock masks batches as they come from the loader. Ours brings bytes, which are normalized on the device, microbatch
    by microbatch, so that its zeros would be black and not the mean.
    """

    def match(self, event: Event, state: State) -> bool:
        """Before every training forward pass."""
        return event == Event.BEFORE_FORWARD
