"""Durations in Composer's notation: 90ep, 625ba, 1000sp, 0.5dur. Imports neither torch nor Composer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

UNITS = {"ep": "epochs", "ba": "batches", "sp": "samples", "dur": "a fraction of the run"}
_PATTERN = re.compile(r"^\s*(\d+(?:\.\d+)?(?:e-?\d+)?)\s*(ep|ba|sp|dur)\s*$")


@dataclass(frozen=True)
class Duration:
    """A length of training: a value and its unit, one of UNITS."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def batches(self, batches_per_epoch: int, global_batch_size: int, total_batches: float = 0) -> float:
        """Return this length in batches; `total_batches`, the length of the run, is needed only for 'dur'."""
        if self.unit == "sp":
            return self.value * (1 / global_batch_size)
        return self.value * {"ep": batches_per_epoch, "ba": 1, "dur": total_batches}[self.unit]

    def scaled(self, ratio: float) -> Duration:
        """Return this length times `ratio`, truncated to whole batches or samples."""
        value = self.value * ratio
        return Duration(int(value) if self.unit in ("ba", "sp") else value, self.unit)


def parse(text: object) -> Duration:
    """Parse a duration; a ValueError unless it is a finite, non-negative number followed by ep, ba, sp or dur."""
    match = _PATTERN.match(str(text))
    if not match:
        meant = f"{text}ep" if str(text).isdecimal() else "90ep, 625ba, 1000sp or 0.5dur"
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, as in {meant}")
    if (value := float(match[1])) == math.inf:
        raise ValueError(f"{text} is too long to compute with; use a duration such as 90ep or 625ba")
    return Duration(value, match[2])
