"""Three rules that read a learning rate off a curve of losses, and which of them to follow."""

from dataclasses import dataclass

import numpy as np

LEAST_FALL = 0.02  # of the first loss; a curve that falls less shows nothing
MIDDLE = "the middle one of the three: noise may mislead one rule, hardly two"
HIGHEST = "the highest of the three: this run warms up to its peak, and stays there only briefly"


@dataclass(frozen=True)
class Suggestion:
    """The learning rate that a rule suggests: the median over the seeds, and its spread."""

    rule: str
    lr: float
    lowest: float
    highest: float


def smoothing_for(points: int) -> float:
    """Return the weight of the past in the running mean, for a sweep of this number of points.

    The usual 0.98 from 1,000 points on. With fewer, it would lag by decades of the learning rate, so the mean covers
    about a twentieth of the sweep.
    """
    return min(0.98, max(0.5, 1 - 20 / points))


class RunningMean:
    """A bias-corrected exponential mean, as in Adam; `smoothing` is the weight of the past, in [0, 1)."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing, self._sum, self._weight = smoothing, 0.0, 0.0

    def add(self, value: float) -> float:
        """Add a value and return the mean."""
        self._sum = self.smoothing * self._sum + (1 - self.smoothing) * value
        self._weight = self.smoothing * self._weight + (1 - self.smoothing)
        return self._sum / self._weight


def fell(losses: np.ndarray, smoothed: np.ndarray) -> bool:
    """Whether the losses and their running mean, float [points] each, fell by more than their noise explains."""
    start = losses[: max(3, len(losses) // 10)].mean()
    # The median of neighbors' differences before the explosion ignores the descent; for normal noise it is 0.954
    # standard deviations.
    calm = losses[: max(int(smoothed.argmin()) + 1, len(losses) // 2, 2)]
    noise = float(np.median(np.abs(np.diff(calm)))) / 0.954 if len(calm) > 1 else 0.0
    weight = smoothing_for(len(losses))
    noise *= ((1 - weight) / (1 + weight)) ** 0.5
    return bool(start - smoothed.min() > max(4 * noise, LEAST_FALL * abs(start)))


def still_falls(smoothed: np.ndarray, points: int) -> bool:
    """Whether a complete curve ends at its lowest, so that the range was too short."""
    return len(smoothed) == points and int(smoothed.argmin()) >= points - 1 - points // 20


def steepest(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Return the rate where the loss falls fastest per decade, before its minimum.

    `rates` rise by a constant factor; `smoothed` are the losses; both float [points].
    """
    first, end = len(rates) // 10, max(len(rates) // 10 + 1, int(smoothed.argmin()) + 1)
    slope = np.gradient(smoothed, np.log(rates))
    return float(rates[first + int(slope[first:end].argmin())])


def valley(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Return the rate halfway down the longest falling subsequence, as fastai does; arguments as for `steepest`."""
    first = len(rates) // 10
    losses = smoothed[first : len(rates) - len(rates) // 20]
    longest = np.ones(len(losses), dtype=int)
    for i in range(1, len(losses)):
        longest[i] += longest[:i][losses[:i] > losses[i]].max(initial=0)
    end = int(longest.argmax())
    # As in fastai, the width is the number of points in the subsequence, gaps left out, and "halfway" is a third and
    # half of a third.
    third = (longest[end] - 1) / 3
    return float(rates[first + end - int(longest[end] - 1) + int(third) + int(third / 2)])


def minimum(rates: np.ndarray, smoothed: np.ndarray) -> float:
    """Return a tenth of the rate with the lowest loss, beyond which the loss soon explodes."""
    return float(rates[int(smoothed.argmin())]) / 10


RULES = {"steepest": steepest, "valley": valley, "minimum/10": minimum}


def suggestions(curves: list[tuple[np.ndarray, np.ndarray]]) -> list[Suggestion]:
    """Return each rule's suggestion for the seeds' curves: (learning rates, smoothed losses)."""
    found = []
    for name, rule in RULES.items():
        rates = [rule(*curve) for curve in curves]
        found.append(Suggestion(name, float(np.exp(np.median(np.log(rates)))), min(rates), max(rates)))
    return found


def recommended(found: list[Suggestion], warms_up: bool) -> tuple[Suggestion, str]:
    """Return the suggestion to follow, and why; `warms_up`: whether the schedule rises to its peak, optimizer.lr."""
    by_rate = sorted(found, key=lambda suggestion: suggestion.lr)
    return (by_rate[-1], HIGHEST) if warms_up else (by_rate[len(found) // 2], MIDDLE)


def rounded(lr: float) -> float:
    """Return a learning rate with three digits, as one types it."""
    return float(f"{lr:.3g}")
