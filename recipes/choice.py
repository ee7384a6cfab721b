"""Choose a recipe for a budget, and forecast it from published figures (`python -m recipes --budget`).

Minutes on other GPUs are those on 8x A100 divided by the ratio of the makers' peaks, as in `tools.forecast --scale`.
How wrong that is, is known from recipes that were published on other GPUs too: their times give the range.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from common.errors import ConfigError
from launch.machines import PEAKS, Price
from recipes.budget import DEFAULT, Budget, gpus_of
from recipes.frontier import MODEL, PUBLISHED, SINGLE, UNVERIFIED, Point, point_of, points
from recipes.published import Published

FARTHEST = 2  # the ratio of two lengths that others lie between
SIGMAS = 2  # half of the stated spread, in standard deviations over repeated runs


@dataclass(frozen=True)
class Choice:
    """A recipe at a length, as its source ran it or between two lengths of its source."""

    point: Point  # the longer one of two
    epochs: float | None  # None if the source does not say
    minutes: float  # on 8x A100
    top1: float  # percent
    shorter: Point | None = None  # the other one of two

    @property
    def recipe(self) -> str:
        """Name of the recipe to train."""
        return self.point.recipe


@dataclass(frozen=True)
class Scale:
    """From published minutes to those on some GPUs."""

    gpus: tuple[int, str]  # number and kind
    speed: float  # times as fast as 8x A100, by the peaks
    lowest: float  # the real time of published runs on other GPUs, divided by that of this arithmetic
    highest: float
    runs: int  # how many were compared

    def published(self, choice: Choice) -> float | None:
        """Return the minutes that the source took on the same GPUs; None if it did not use them."""
        own = choice.point.figure
        if self.gpus == DEFAULT:
            return choice.minutes if choice.point.basis == PUBLISHED else None
        return own.number("minutes") if gpus_of(own.hardware) == self.gpus and not choice.shorter else None

    def minutes(self, choice: Choice) -> float:
        """Return the forecast."""
        return self.published(choice) or choice.minutes / self.speed

    def span(self, choice: Choice) -> tuple[float, float]:
        """Return the range of the minutes, of no width for a published time."""
        minutes = self.minutes(choice)
        if self.published(choice):
            return minutes, minutes
        lowest = 1.0 if self.gpus == DEFAULT else self.lowest  # minutes inferred there are a lower bound
        return minutes * lowest, minutes * self.highest


def speed_of(count: int, kind: str) -> float:
    """Return how many times as fast as 8x A100 some GPUs are, by their makers' peaks."""
    return count * PEAKS[kind] / (DEFAULT[0] * PEAKS[DEFAULT[1]])


def errors_of(rows: Iterable[Published]) -> list[float]:
    """Return real minutes on other GPUs over those by the peaks, of each recipe with a time on 8x A100 as well."""
    rows = [row for row in rows if row.model == MODEL]
    found = []
    for row in rows:
        real, gpus = row.number("minutes"), gpus_of(row.hardware)
        if real is None or gpus is None or gpus == DEFAULT:
            continue
        alike = [row, *(other for other in rows if other.recipe == row.recipe and _same_length(row, other))]
        base = next(filter(None, map(point_of, alike)), None)
        if base is not None:
            found.append(real / (base.minutes / speed_of(*gpus)))
    return found


def _same_length(row: Published, other: Published) -> bool:
    return row.epochs == other.epochs or not (row.epochs and other.epochs)


def scale_for(budget: Budget, rows: Iterable[Published]) -> Scale:
    """Return the scale to a budget's GPUs, its errors those of the published figures."""
    errors = errors_of(rows)
    gpus = (budget.count, budget.kind)
    return Scale(gpus, speed_of(*gpus), min(errors, default=1.0), max(errors, default=1.0), len(errors))


def choices(everything: Iterable[Point]) -> Iterator[Choice]:
    """Yield each point, and each whole number of epochs between two lengths that a source ran alike."""
    families: dict[tuple[str, str, str], list[Point]] = {}
    for point in everything:
        epochs = point.figure.number("epochs")
        yield Choice(point, epochs, point.minutes, point.top1)
        if epochs:
            families.setdefault((family_of(point), point.protocol, point.basis), []).append(point)
    for alike in families.values():
        for shorter, longer in pairwise(sorted(alike, key=lambda point: float(point.figure.epochs))):
            yield from between(shorter, longer)


def family_of(point: Point) -> str:
    """Return the name that the lengths of a recipe share: ffcv for ffcv_16 in 16 epochs."""
    return point.recipe.removesuffix(f"_{point.figure.epochs}")


def between(shorter: Point, longer: Point) -> Iterator[Choice]:
    """Yield the lengths between two: minutes in proportion to the epochs, top-1 to their logarithm."""
    first, last = float(shorter.figure.epochs), float(longer.figure.epochs)
    rise = shorter.minutes < longer.minutes and shorter.top1 < longer.top1  # or else something else differed too
    if not (shorter.is_counted and rise and last / first <= FARTHEST):
        return
    for epochs in range(math.floor(first) + 1, math.ceil(last)):
        share, of_log = (epochs - first) / (last - first), math.log(epochs / first) / math.log(last / first)
        minutes = shorter.minutes + share * (longer.minutes - shorter.minutes)
        yield Choice(longer, epochs, minutes, shorter.top1 + of_log * (longer.top1 - shorter.top1), shorter)


def cost(minutes: float, price: Price) -> float | None:
    """Return dollars; None without a price."""
    return None if price.dollars is None else minutes / 60 * price.dollars


def fits(choice: Choice, budget: Budget, scale: Scale, price: Price) -> bool:
    """Whether a choice keeps to a budget even at the slow end of its range, and reaches its top-1."""
    slow = scale.span(choice)[1]
    if budget.top1 and choice.top1 < budget.top1:
        return False
    if budget.minutes and slow > budget.minutes:
        return False
    return not budget.dollars or (cost(slow, price) or math.inf) <= budget.dollars


@dataclass(frozen=True)
class Answer:
    """What fits a budget."""

    best: list[Choice]  # one, or first one with mirrored images and then one of a single crop
    unverified: list[Choice]  # those more accurate by figures that nobody has checked


def answer(rows: list[Published], shipped: Collection[str], budget: Budget, scale: Scale, price: Price) -> Answer:
    """Return what fits; a ConfigError that names the cheapest if nothing does.

    `shipped` are the names of the recipes that can be trained here.
    """
    if budget.dollars and price.dollars is None:
        raise ConfigError(f"--budget: ${budget.dollars:g} given, but {price.why}, in dollars per hour of all GPUs")
    known = [choice for choice in choices(points(rows)) if choice.recipe in shipped]
    counted = [choice for choice in known if choice.point.is_counted and choice.epochs]
    fitting = [choice for choice in counted if fits(choice, budget, scale, price)]
    if not fitting:
        raise ConfigError(nothing_fits(counted, budget, scale, price))
    protocols = {choice.point.protocol: list[Choice]() for choice in fitting}
    for choice in fitting:
        protocols[choice.point.protocol].append(choice)
    best = [preferred(alike, budget, scale, spread_of(rows)) for alike in protocols.values()]
    best.sort(key=lambda choice: scale.span(choice)[1] if budget.top1 else -choice.top1)
    if best[0].point.protocol == SINGLE:  # mirrored images would only make the other figure look better than it is
        best = best[:1]
    unverified = [
        choice
        for choice in known
        if choice.point.basis == UNVERIFIED and fits(choice, budget, scale, price) and choice.top1 > best[0].top1
    ]
    return Answer(best, [] if budget.top1 else unverified)


def preferred(fitting: Iterable[Choice], budget: Budget, scale: Scale, spread: float) -> Choice:
    """Return the fastest with a top-1 to reach, or else the most accurate; the faster of two that seeds may reverse."""

    def slow(choice: Choice) -> float:
        return scale.span(choice)[1]

    if budget.top1:
        return min(fitting, key=slow)
    families: dict[str, Choice] = {}
    for choice in sorted(fitting, key=lambda choice: (choice.top1, -slow(choice))):
        families[family_of(choice.point)] = choice
    most = max(choice.top1 for choice in families.values())
    return min((choice for choice in families.values() if choice.top1 >= most - spread), key=slow)


def spread_of(rows: Iterable[Published]) -> float:
    """Return the half width of a top-1 whose source ran once: that of the source whose repeated runs vary the most."""
    return SIGMAS * max((row.number("sd") or 0.0 for row in rows if row.model == MODEL), default=0.0)


def nothing_fits(known: list[Choice], budget: Budget, scale: Scale, price: Price) -> str:
    """Return the sentence for a budget that nothing fits: the most accurate, or what the cheapest takes."""
    most = max(known, key=lambda choice: choice.top1)
    if budget.top1 and most.top1 < budget.top1:
        return (
            f"--budget: no recipe here has a published and checked top-1 of {budget.top1:g} %; the most accurate is "
            f"{most.recipe}, {most.top1:.2f} %"
        )
    least = min((choice for choice in known if choice.top1 >= (budget.top1 or 0)), key=lambda choice: choice.minutes)
    low, high = scale.span(least)
    worth = spelled(high) if low == high else f"{spelled(low)} to {spelled(high)}"
    dollars = cost(high, price)
    return (
        f"--budget: nothing fits {budget}; the cheapest that exists{' with that top-1' if budget.top1 else ''} is "
        f"{least.recipe}, {least.epochs:g} epochs, {least.top1:.2f} %, which takes {worth}"
        f"{f' and up to ${dollars:,.2f}' if dollars else ''} there"
    )


def unit_of(minutes: float) -> tuple[int, str]:
    """Return the minutes of the unit that suits a time, and its name."""
    return (1, "min") if minutes < 120 else (60, "h") if minutes < 48 * 60 else (1440, "days")


def spelled(minutes: float) -> str:
    """Return minutes in the unit that suits them: 52 min, 3.4 h, 5.1 days."""
    per_unit, unit = unit_of(minutes)
    return f"{minutes / per_unit:.{int(per_unit > 1)}f} {unit}"
