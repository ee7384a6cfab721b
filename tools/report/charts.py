"""The charts of a table of groups: one line per group, never one per run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from tools.records import Curve, Group, Prices, Published, Spread, Table, over_steps, over_time, spread
from tools.records.curves import SIGMAS
from tools.report.drawing import INK, MUTED, REST, SERIES, new_axes, spread_labels

COLOURED = len(SERIES)  # groups that have a colour of their own; the others are grey
LABEL_GAP = 0.055  # of the axes' height
LOGARITHMIC_FROM = 8.0  # the ratio of the largest to the smallest value
ACCURACIES = ("top1", "top5")
LABEL_WIDTH = 0.06  # of the axes' width
UNITS = ((3 * 3600, 3600, "h"), (300, 60, "min"), (0, 1, "s"))  # from so many seconds on, what is 1, its name


@dataclass(frozen=True)
class Chart:
    """A chart that is drawn when it is needed.

    Attributes:
        name: of its file.
        title: what it shows.
        draw: makes the figure.
    """

    name: str
    title: str
    draw: Callable[[], Figure]


def colour_of(place: int) -> str:
    """The colour of the group at a place of the table, counted from 0."""
    return SERIES[place] if place < COLOURED else REST


def charts(table: Table, prices: Prices, published: list[tuple[str, Published]]) -> list[Chart]:
    """All charts of a table that have something to show.

    Args:
        table: the groups; their numbers are their places in it, from 1.
        prices: what costs are made of.
        published: letter and figure, to be shown hollow; none where they do not compare.
    """
    found = []
    for column, name in zip(ACCURACIES, ("Top-1", "Top-5"), strict=True):
        if name == "Top-5" and not table.data.has_top5:
            continue
        if any(over_steps(group, column) for group in table.groups):
            found.append(_over_steps(table, column, f"{name} over steps", f"{name}, %"))
            found.append(_over_time(table, column, name))
    found.append(_pareto_chart(table, "time", seconds_of, published))
    if any(cost_of(group, prices) is not None for group in table.groups):
        found.append(_pareto_chart(table, "cost", lambda group: cost_of(group, prices), []))
    others = {"train_loss": "Training loss", "val_loss": "Validation loss", "lr": "Learning rate"}
    for column, name in others.items():
        if any(over_steps(group, column) for group in table.groups):
            found.append(_over_steps(table, column, f"{name} over steps", name.lower()))
    if any(over_steps(group, "image_size") for group in table.groups):
        found.append(_over_steps(table, "image_size", "Image size over steps", "side in training, px"))
    return found


def seconds_of(group: Group) -> float | None:
    """Mean seconds of training."""
    its = group.figure("train_seconds")
    return its.mean if its and its.mean > 0 else None


def cost_of(group: Group, prices: Prices) -> float | None:
    """Mean dollars of the runs whose cost is known."""
    its = spread(prices.of(record).dollars for record in group.records)
    return its.mean if its and its.mean > 0 else None


def _over_steps(table: Table, column: str, title: str, label: str) -> Chart:
    def draw() -> Figure:
        axes = new_axes("step", label)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}")
        return lines(axes, [over_steps(group, column) for group in table.groups], column)

    return Chart(f"{column}-steps", title, draw)


def _over_time(table: Table, column: str, name: str) -> Chart:
    curves = [over_time(group, column) for group in table.groups]
    longest = max((float(curve.x[-1]) for curve in curves if curve), default=0.0)
    scale, unit = unit_of(longest)

    def draw() -> Figure:
        axes = new_axes(f"training time, {unit}", f"{name}, %")
        return lines(axes, [curve and in_units(curve, scale) for curve in curves], column)

    return Chart(f"{column}-time", f"{name} over training time", draw)


def unit_of(seconds: float) -> tuple[float, str]:
    """How many seconds the unit has in which so long a time is told, and its name."""
    return next((scale, name) for least, scale, name in UNITS if seconds >= least)


def in_units(curve: Curve, scale: float) -> Curve:
    """The same curve over another unit of time."""
    return Curve(curve.x / scale, curve.mean, curve.sd, curve.n)


def lines(axes: Axes, curves: list[Curve | None], column: str) -> Figure:
    """Draw the groups' curves, the first one on top, with bands, and their numbers where they end."""
    style: dict[str, Any] = {"drawstyle": "steps-pre"} if column == "image_size" else {}
    for place in reversed(range(len(curves))):
        if (curve := curves[place]) is None:
            continue
        colour, front = colour_of(place), len(curves) - place
        if curve.band and column not in ("lr", "image_size"):
            axes.fill_between(curve.x, *curve.band, color=colour, alpha=0.18, linewidth=0, zorder=2)
        marker = "o" if len(curve.x) == 1 else None
        axes.plot(curve.x, curve.mean, color=colour, linewidth=1.5, marker=marker, zorder=2 + front, **style)
    if far_apart([float(curve.x[-1]) for curve in curves if curve]) and column in ACCURACIES:
        logarithmic(axes)
    axes.margins(x=0.02, y=0.08)
    if column in ACCURACIES:
        axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(100.0, axes.get_ylim()[1]))
    _number_ends(axes, curves[:COLOURED])
    return figure_of(axes)


def figure_of(axes: Axes) -> Figure:
    """The figure that the axes are alone on."""
    return axes.figure  # type: ignore[return-value]


def far_apart(values: list[float]) -> bool:
    """Whether the values are too far apart for one linear axis."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) / min(positive) > LOGARITHMIC_FROM


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis from left to right, with round numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _number_ends(axes: Axes, curves: list[Curve | None]) -> None:
    """The groups' numbers at the ends of their lines, moved apart where several end at one place."""
    ends = [(place, curve) for place, curve in enumerate(curves) if curve is not None]
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.03 if axes.get_xscale() == "log" else right + 0.03 * (right - left))
    to_axes = axes.transData + axes.transAxes.inverted()
    points = to_axes.transform([(curve.x[-1], curve.mean[-1]) for _, curve in ends]).tolist() if ends else []
    for near in _neighbours([x for x, _ in points]):
        heights = spread_labels([points[at][1] for at in near], LABEL_GAP)
        for at, height in zip(near, heights, strict=True):
            place = ends[at][0]
            style: dict[str, Any] = {
                "xycoords": "axes fraction",
                "textcoords": "offset points",
                "annotation_clip": False,
            }
            axes.annotate(str(place + 1), (points[at][0], height), (4, 0), va="center", **style, **_number_style(place))


def _neighbours(positions: list[float]) -> list[list[int]]:
    """Who stands beside whom, as indices: within LABEL_WIDTH of the first of them."""
    found: list[list[int]] = []
    for at in sorted(range(len(positions)), key=lambda at: positions[at]):
        if found and positions[at] - positions[found[-1][0]] < LABEL_WIDTH:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _number_style(place: int) -> dict[str, Any]:
    return {"color": colour_of(place), "fontweight": "bold", "fontsize": 8.5}


@dataclass(frozen=True)
class Point:
    """A group's mean top-1 over what it took: the group's place, seconds or dollars, per cent."""

    place: int
    x: float
    top1: Spread


def _pareto_chart(
    table: Table, name: str, x_of: Callable[[Group], float | None], published: list[tuple[str, Published]]
) -> Chart:
    """Top-1 over what it took; `name` is time or cost."""
    points = [
        Point(place, x, top1)
        for place, group in enumerate(table.groups)
        if (x := x_of(group)) is not None and (top1 := group.figure("top1")) is not None
    ]
    hollow = [(letter, 60 * (row.number("minutes") or 0), row.number("top1") or 0) for letter, row in published]
    xs = [point.x for point in points] + [x for _, x, _ in hollow]
    scale, unit = unit_of(max(xs, default=0.0)) if name == "time" else (1.0, "")

    def draw() -> Figure:
        axes = new_axes(f"training time, {unit}" if name == "time" else "cost of a run, $", "Top-1, %")
        for letter, x, y in hollow:
            axes.plot(x / scale, y, "o", markerfacecolor="none", markeredgecolor=MUTED, markersize=4.5, zorder=2)
            axes.annotate(letter, (x / scale, y), (3, 3), textcoords="offset points", color=MUTED, fontsize=7)
        for point in points:
            _mark(axes, point, scale)
        front = pareto([(point.x / scale, point.top1.mean) for point in points])
        if front:
            axes.plot(*zip(*front, strict=True), color=INK, linewidth=0.9, drawstyle="steps-post", alpha=0.6, zorder=1)
        if far_apart(xs):
            logarithmic(axes)
        axes.margins(x=0.08, y=0.1)
        _no_noise_writ_large(axes)
        return figure_of(axes)

    return Chart(f"top1-{name}-pareto", f"Top-1 and {'training time' if name == 'time' else 'cost'}", draw)


def _mark(axes: Axes, point: Point, scale: float) -> None:
    """A group's mark, two standard deviations up and down, and its number."""
    error = SIGMAS * point.top1.sd if point.top1.sd is not None else None
    colour, at = colour_of(point.place), (point.x / scale, point.top1.mean)
    axes.errorbar(*at, yerr=error, fmt="o", color=colour, markersize=6, zorder=5, capsize=2, linewidth=1.2)
    if point.place < COLOURED:
        axes.annotate(str(point.place + 1), at, (6, -9), textcoords="offset points", **_number_style(point.place))


def _no_noise_writ_large(axes: Axes) -> None:
    """At least half a point of top-1 from bottom to top."""
    bottom, top = axes.get_ylim()
    if top - bottom < 0.5:
        axes.set_ylim((bottom + top) / 2 - 0.25, (bottom + top) / 2 + 0.25)


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats: for less, at least as good."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
