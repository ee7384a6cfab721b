"""Curves over repeated runs: mean and two standard deviations, over steps or time."""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from tools.records.groups import Group
from tools.records.reading import Record

POINTS = 120  # of a curve over time
SIGMAS = 2.0  # half the width of a band, in standard deviations


@dataclass(frozen=True)
class Curve:
    """A figure over steps or seconds; every array is [points]."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray | None  # with ddof=1; None for one run

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper edge, [points] each."""
        if self.sd is None:
            return None
        return self.mean - SIGMAS * self.sd, self.mean + SIGMAS * self.sd


def over_steps(group: Group, column: str) -> Curve | None:
    """Return a column at the steps at which every run was evaluated; None without any."""
    runs = _pairs(group, "step", column)
    if not runs:
        return None
    steps = reduce(np.intersect1d, (x for x, _ in runs))
    return _curve(steps, [y[np.searchsorted(x, steps)] for x, y in runs]) if len(steps) else None


def over_time(group: Group, column: str) -> Curve | None:
    """Return a column over the seconds of training, interpolated to times that every run has reached."""
    runs = _pairs(group, "train_seconds", column)
    if not runs:
        return None
    first, last = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    if last < first:
        return None
    times = np.linspace(first, last, POINTS if last > first else 1)
    return _curve(times, [np.interp(times, x, y) for x, y in runs])


def seconds_to(record: Record, target: float) -> float | None:
    """Return the seconds of training until an evaluation's top-1 reached the target; None if none did."""
    reached = np.flatnonzero(record.column("top1") >= target)
    return float(record.column("train_seconds")[reached[0]]) if len(reached) else None


def _pairs(group: Group, x: str, y: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return both columns of every run that has them, without empty cells, by rising x."""
    pairs = []
    for record in group.records:
        xs, ys = record.column(x).astype(np.float64), record.column(y).astype(np.float64)
        if len(xs) == len(ys) and (known := np.isfinite(xs) & np.isfinite(ys)).any():
            xs, first = np.unique(xs[known], return_index=True)
            pairs.append((xs, ys[known][first]))
    return pairs


def _curve(x: np.ndarray, runs: list[np.ndarray]) -> Curve:
    values = np.stack(runs)
    sd = values.std(axis=0, ddof=1) if len(runs) > 1 else None
    return Curve(x, values.mean(axis=0), sd)
