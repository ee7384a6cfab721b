"""From a curve of losses over learning rates to a learning rate: three rules, and which of them to follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_FALL = 0.02  # of the first loss: a curve that falls less than that has shown nothing
MIDDLE = "the middle one of the three: noise can mislead one rule, hardly two"
HIGHEST = "the highest of the three: this run warms up to its peak, and stays there for a part of its time only"


@dataclass(frozen=True)
class Suggestion:
    """What a rule says: the median over the seeds and its spread, as learning rates."""

    rule: str
    lr: float
    lowest: float
    highest: float


def smoothing_for(points: int) -> float:
    """The weight of the past in the running mean, for a sweep of so many points.

    0.98 as usual from 1,000 points up. With fewer, that mean would lag behind by decades of the learning rate: it is
    kept to about a twentieth of the sweep.
    """
    return min(0.98, max(0.5, 1 - 20 / points))


class RunningMean:
    """An exponential mean without the pull towards its start at 0 (bias-corrected as Adam's).

    Args:
        smoothing: the weight of the past, from 0 to less than 1.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing, self._sum, self._weight = smoothing, 0.0, 0.0

    def add(self, value: float) -> float:
        """The mean with this value in it."""
        self._sum = self.smoothing * self._sum + (1 - self.smoothing) * value
        self._weight = self.smoothing * self._weight + (1 - self.smoothing)
        return self._sum / self._weight


def fell(losses: np.ndarray, smoothed: np.ndarray) -> bool:
    """Whether a curve fell, by more than its noise can feign.

    Args:
        losses: as measured, float [points].
        smoothed: their running mean, float [points].
    """
    start = losses[: max(3, len(losses) // 10)].mean()
    # From neighbours before the explosion, and their median, so that the descent does not count either: for normal
    # noise the median of |difference| is 0.954 standard deviations.
    calm = losses[: max(int(smoothed.argmin()) + 1, len(losses) // 2, 2)]
    noise = float(np.median(np.abs(np.diff(calm)))) / 0.954 if len(calm) > 1 else 0.0
    weight = smoothing_for(len(losses))
    noise *= ((1 - weight) / (1 + weight)) ** 0.5
    return bool(start - smoothed.min() > max(4 * noise, LEAST_FALL * abs(start)))


def still_falls(smoothed: np.ndarray, points: int) -> bool:
    """Whether a curve of all `points` ends at its lowest: the range was cut off too early."""
    return len(smoothed) == points and int(smoothed.argmin()) >= points - 1 - points // 20


def steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Where the loss falls fastest per decade, before its minimum.

    Args:
        rates: learning rates, rising by one factor, float [points].
        smoothed: losses, float [points].
    """
    first, end = len(rates) // 10, max(len(rates) // 10 + 1, int(smoothed.argmin()) + 1)
    slope = np.gradient(smoothed, np.log(rates))
    return float(rates[first + int(slope[first:end].argmin())])


def valley(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Halfway down the longest descent: its longest falling subsequence, as in fastai.

    Args:
        rates: as for `steepest`.
        smoothed: as for `steepest`.
    """
    first = len(rates) // 10
    losses = smoothed[first : len(rates) - len(rates) // 20]
    longest = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        longest[i] += longest[:i][losses[:i] > losses[i]].max(initial=0)
    end = int(longest.argmax())
    # fastai counts the descent's points, which may leave some out, for its width; and "halfway" is a third and a half
    # of a third.
    third = (longest[end] - 1) / 3
    return float(rates[first + end - int(longest[end] - 1) + int(third) + int(third / 2)])


def minimum(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """A tenth of the learning rate with the lowest loss: beyond it, the loss soon explodes.

    Args:
        rates: as for `steepest`.
        smoothed: as for `steepest`.
    """
    return float(rates[int(smoothed.argmin())]) / 10


RULES = {"steepest": steepest, "valley": valley, "minimum/10": minimum}


def suggestions(curves: list[tuple[np.ndarray, np.ndarray]]) -> list[Suggestion]:
    """What each rule says about the curves of all seeds.

    Args:
        curves: (learning rates, smoothed losses) of each seed.
    """
    found = []
    for name, rule in RULES.items():
        rates = [rule(*curve) for curve in curves]
        found.append(Suggestion(name, float(np.exp(np.median(np.log(rates)))), min(rates), max(rates)))
    return found


def recommended(found: list[Suggestion], warms_up: bool) -> tuple[Suggestion, str]:
    """The suggestion to follow, and why.

    Args:
        found: one per rule. None of them is above the rate of the lowest loss.
        warms_up: whether the run's schedule rises to its peak, which optimizer.lr is then.
    """
    by_rate = sorted(found, key=lambda suggestion: suggestion.lr)
    return (by_rate[-1], HIGHEST) if warms_up else (by_rate[len(found) // 2], MIDDLE)


def rounded(lr: float) -> float:
    """A learning rate as one types it: three digits."""
    return float(f"{lr:.3g}")
