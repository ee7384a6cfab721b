"""Durations in Composer's notation: 90ep, 625ba, 1000sp, 0.5dur. Imports neither torch nor Composer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigError

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


def durations_of(config: Any) -> tuple[Duration, Duration]:
    """Return the length of a run and of its warm-up, with scale_schedule_ratio applied.

    The length is truncated to whole epochs or batches, as in Composer (90ep times 0.36 is 32ep). The warm-up keeps its
    fraction of an epoch, and is not scaled if scheduler.scale_warmup is false.

    Raises:
        ConfigError: a duration cannot be parsed, or the scaled run is shorter than one unit.
    """
    ratio = float(config.scale_schedule_ratio)
    try:
        full, warmup = parse(config.max_duration), parse(config.scheduler.t_warmup)
    except ValueError as error:
        raise ConfigError(f"max_duration or scheduler.t_warmup: {error}") from error
    if math.isinf(max(full.value, warmup.value) * ratio):
        raise ConfigError(
            f"scale_schedule_ratio: {ratio:g} makes max_duration or scheduler.t_warmup too long to compute with; "
            "use a ratio of about 1"
        )
    # The epsilon makes 100ep * 0.29 (28.999999999999996 in floating point) come out as 29.
    length = Duration(float(int(full.value * ratio + 1e-9)), full.unit)
    if length.value < 1:
        raise ConfigError(
            f"max_duration: {full} times scale_schedule_ratio {ratio:g} leaves less than one {length.unit}; "
            f"a ratio of at least {1 / full.value if full.value else 1:.3g} leaves one"
        )
    scale = config.scheduler.scale_warmup and warmup.unit != "dur"
    return length, warmup.scaled(ratio) if scale else warmup
