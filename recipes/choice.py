"""Choose a recipe for a budget, and forecast it from published figures (`python -m recipes --budget`).

Minutes on other GPUs are those on 8x A100 divided by the ratio of the makers' peaks, as in `tools.forecast --scale`.
How wrong that is, is known from recipes that were published on other GPUs too: their times give the range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from common.errors import ConfigError
from launch.machines import PEAKS, Price
from recipes.budget import DEFAULT, Budget, gpus_of
from recipes.frontier import MODEL, PUBLISHED, UNVERIFIED, Point, point_of, points
from recipes.published import Published

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
    """From minutes on 8x A100 to those of other GPUs."""

    speed: float  # times as fast as 8x A100, by the peaks
    lowest: float  # the real time of published runs on other GPUs, divided by that of this arithmetic
    highest: float
    runs: int  # how many were compared

    def minutes(self, choice: Choice) -> float:
        """Return the forecast."""
        return choice.minutes / self.speed

    def span(self, choice: Choice) -> tuple[float, float]:
        """Return the range of the minutes; a single number for a published time on the same GPUs."""
        minutes = self.minutes(choice)
        if self.speed == 1 and choice.point.basis == PUBLISHED:
            return minutes, minutes
        return minutes * self.lowest, minutes * self.highest


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
    return Scale(speed_of(budget.count, budget.kind), min(errors, default=1.0), max(errors, default=1.0), len(errors))


def choices(everything: Iterable[Point]) -> Iterator[Choice]:
    """Yield each point, and each whole number of epochs between two lengths that a source ran alike."""
    families: dict[tuple[str, str, str], list[Point]] = {}
    for point in everything:
        epochs = point.figure.number("epochs")
        yield Choice(point, epochs, point.minutes, point.top1)
        if epochs:
            family = point.recipe.removesuffix(f"_{point.figure.epochs}")
            families.setdefault((family, point.protocol, point.basis), []).append(point)
    for family in families.values():
        for shorter, longer in pairwise(sorted(family, key=lambda point: float(point.figure.epochs))):
            yield from between(shorter, longer)


def between(shorter: Point, longer: Point) -> Iterator[Choice]:
    """Yield the lengths between two: minutes in proportion to the epochs, top-1 to their logarithm."""
    first, last = float(shorter.figure.epochs), float(longer.figure.epochs)
    if not (shorter.is_counted and shorter.minutes < longer.minutes and shorter.top1 < longer.top1):
        return  # other conditions differed
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

    best: list[Choice]  # one of each protocol, the preferred first
    unverified: list[Choice]  # more accurate by figures that nobody has checked


def answer(rows: list[Published], lengths: Mapping[str, float], budget: Budget, scale: Scale, price: Price) -> Answer:
    """Return what fits; a ConfigError that names the nearest if nothing does.

    `lengths` are the epochs of the recipes that can be trained here, by name. With a top-1 to reach, the fastest is
    preferred, else the most accurate.
    """
    if budget.dollars and price.dollars is None:
        raise ConfigError(f"--budget: ${budget.dollars:g} given, but {price.why}, in dollars per hour of all GPUs")
    known = [choice for choice in choices(points(rows)) if choice.recipe in lengths]
    counted = [choice for choice in known if choice.point.is_counted]
    fitting = [choice for choice in counted if fits(choice, budget, scale, price)]

    def preference(choice: Choice) -> tuple[float, float]:
        slow = scale.span(choice)[1]
        return (-slow, choice.top1) if budget.top1 else (round(choice.top1, 2), -slow)

    if not fitting:
        raise ConfigError(nothing_fits(counted, budget, scale, price))
    by_protocol = {choice.point.protocol: choice for choice in sorted(fitting, key=preference)}
    best = sorted(by_protocol.values(), key=preference, reverse=True)
    doubtful = [choice for choice in known if choice.point.basis == UNVERIFIED and fits(choice, budget, scale, price)]
    return Answer(best, [choice for choice in doubtful if preference(choice) > preference(best[0])])


def nothing_fits(known: list[Choice], budget: Budget, scale: Scale, price: Price) -> str:
    """Return the sentence for a budget that nothing fits: the most accurate, or what the cheapest takes."""
    most = max(known, key=lambda choice: choice.top1)
    if budget.top1 and most.top1 < budget.top1:
        return (
            f"--budget: no recipe here has a published top-1 of {budget.top1:g} % that was checked; the most accurate is "
            f"{most.recipe}, {most.top1:.2f} %"
        )
    able = [choice for choice in known if choice.top1 >= (budget.top1 or 0)]
    least = min(able, key=lambda choice: choice.minutes)
    slow = scale.span(least)[1]
    dollars = cost(slow, price)
    worth = f"{spelled(slow)}{f' and ${dollars:,.2f}' if dollars else ''}"
    return (
        f"--budget: nothing fits {budget}; the cheapest published figure{' of that top-1' if budget.top1 else ''} is of "
        f"{least.recipe}, {least.epochs:g} epochs, {least.top1:.2f} %, which may take {worth} there"
    )


def spelled(minutes: float) -> str:
    """Return minutes in the unit that fits: 52 min, 3.4 h, 5.1 days."""
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
