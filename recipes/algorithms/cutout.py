"""CutOut: mask squares of the normalized images, in which zero is the mean color."""

from __future__ import annotations

from composer.algorithms.cutout import CutOut as StockCutOut
from composer.core import Event, State


class CutOut(StockCutOut):
    """Composer's CutOut (DeVries and Taylor 2017, arXiv 1708.04552), on normalized microbatches.

    Stock masks the loader's batches. Our loader returns bytes that are normalized later, on the device, so zeros would
    be black instead of the mean.
    """

    def match(self, event: Event, state: State) -> bool:
        """Run before every training forward pass."""
        return event == Event.BEFORE_FORWARD
