"""The charts of a table of groups: one line per group, never one per run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from config.schema import METRICS
from recipes.published import Published
from tools.records.cost import Prices
from tools.records.groups import SIGMAS, Curve, Spread, Table, over_steps, over_time
from tools.report.drawing import INK, MUTED, REST, SERIES, new_axes, spread_labels
from training.earlier_run import ACCURACIES

COLORED = len(SERIES)  # groups with their own color; the others are gray
LABEL_GAP = 0.055  # of the axes' height
LOGARITHMIC_FROM = 8.0  # the ratio of the largest to the smallest value
LABEL_WIDTH = 0.06  # of the axes' width
UNITS = ((3 * 3600, 3600, "h"), (300, 60, "min"), (0, 1, "s"))  # from how many seconds on, seconds per unit, name
OTHERS = {  # columns of metrics.csv: title of the chart, label of the axis
    "train_loss": ("Training loss", "training loss"),
    **{column: (title.capitalize(), title) for column, title, unit in METRICS.values() if not unit},
    "lr": ("Learning rate", "learning rate"),
    "image_size": ("Image size", "side in training, px"),
}


@dataclass(frozen=True)
class Chart:
    """A chart that is drawn when it is needed."""

    name: str  # of its file
    title: str
    draw: Callable[[], Figure]


def color_of(place: int) -> str:
    """Return the color of the group at a place of the table, counted from 0."""
    return SERIES[place] if place < COLORED else REST


def charts(table: Table, prices: Prices, published: list[tuple[str, Published]]) -> list[Chart]:
    """Return all charts of a table that are not empty; `published` are the letters and figures of hollow marks."""
    known = [column for column in (*ACCURACIES, *OTHERS) if any(over_steps(group, column) for group in table.groups)]
    found = []
    for column in known:
        if column in ACCURACIES and (not column.startswith("top5") or table.data.has_top5):
            name = ACCURACIES[column].capitalize()
            found += [_over_steps(table, column, name, f"{name}, %"), _over_time(table, column, name)]
    found.append(_pareto_chart(table, "time", [group.figure("train_seconds") for group in table.groups], published))
    costs = [prices.spread_of(group.records) for group in table.groups]
    if any(cost and cost.mean > 0 for cost in costs):
        found.append(_pareto_chart(table, "cost", costs, []))
    return found + [_over_steps(table, column, *OTHERS[column]) for column in known if column in OTHERS]


def _over_steps(table: Table, column: str, title: str, label: str) -> Chart:
    def draw() -> Figure:
        axes = new_axes("step", label)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}")
        return lines(axes, [over_steps(group, column) for group in table.groups], column)

    return Chart(f"{column}-steps", f"{title} over steps", draw)


def _over_time(table: Table, column: str, name: str) -> Chart:
    curves = [over_time(group, column) for group in table.groups]
    scale, unit = unit_of(max((float(curve.x[-1]) for curve in curves if curve), default=0.0))

    def draw() -> Figure:
        axes = new_axes(f"training time, {unit}", f"{name}, %")
        return lines(axes, [curve and replace(curve, x=curve.x / scale) for curve in curves], column)

    return Chart(f"{column}-time", f"{name} over training time", draw)


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the seconds per unit, and the name, of the unit that suits a time."""
    return next((scale, name) for least, scale, name in UNITS if seconds >= least)


def lines(axes: Axes, curves: list[Curve | None], column: str) -> Figure:
    """Draw the groups' curves, the first one on top, with bands, and their numbers at the ends."""
    style: dict[str, Any] = {"drawstyle": "steps-pre"} if column == "image_size" else {}
    for place in reversed(range(len(curves))):
        if (curve := curves[place]) is None:
            continue
        color, front = color_of(place), len(curves) - place
        if curve.band and column not in ("lr", "image_size"):
            axes.fill_between(curve.x, *curve.band, color=color, alpha=0.18, linewidth=0, zorder=2)
        marker = "o" if len(curve.x) == 1 else None
        axes.plot(curve.x, curve.mean, color=color, linewidth=1.5, marker=marker, zorder=2 + front, **style)
    axes.margins(x=0.02, y=0.08)
    if column in ACCURACIES:
        logarithmic_if_far(axes, [float(curve.x[-1]) for curve in curves if curve])
        axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(100.0, axes.get_ylim()[1]))
    _number_ends(axes, curves[:COLORED])
    return axes.figure  # type: ignore[return-value]


def logarithmic_if_far(axes: Axes, values: list[float]) -> None:
    """Make the horizontal axis logarithmic, with round numbers, if the values are too far apart for a linear one."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0), numticks=8))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())


def _number_ends(axes: Axes, curves: list[Curve | None]) -> None:
    """Write the groups' numbers at the ends of their lines, moved apart where several end together."""
    ends = [(place, curve) for place, curve in enumerate(curves) if curve is not None]
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.03 if axes.get_xscale() == "log" else right + 0.03 * (right - left))
    to_axes = axes.transData + axes.transAxes.inverted()
    points = to_axes.transform([(curve.x[-1], curve.mean[-1]) for _, curve in ends]).tolist() if ends else []
    where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    for near in _neighbors([x for x, _ in points]):
        heights = spread_labels([points[at][1] for at in near], LABEL_GAP)
        for at, height in zip(near, heights, strict=True):
            place = ends[at][0]
            axes.annotate(str(place + 1), (points[at][0], height), (4, 0), va="center", **where, **_number_style(place))


def _neighbors(positions: list[float]) -> list[list[int]]:
    """Return the indices of positions in clusters, each within LABEL_WIDTH of its first."""
    found: list[list[int]] = []
    for at in sorted(range(len(positions)), key=lambda at: positions[at]):
        if found and positions[at] - positions[found[-1][0]] < LABEL_WIDTH:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _number_style(place: int) -> dict[str, Any]:
    return {"color": color_of(place), "fontweight": "bold", "fontsize": 8.5}


def _pareto_chart(
    table: Table, name: str, spreads: list[Spread | None], published: list[tuple[str, Published]]
) -> Chart:
    """Return the chart of top-1 over `name`, which is time or cost; `spreads` are the groups' seconds or dollars."""
    points = [  # a group's place, seconds or dollars, top-1
        (place, x.mean, top1)
        for place, (group, x) in enumerate(zip(table.groups, spreads, strict=True))
        if x and x.mean > 0 and (top1 := group.figure("top1"))
    ]
    hollow = [(letter, 60 * (row.number("minutes") or 0), row.number("top1") or 0) for letter, row in published]
    xs = [x for _, x, _ in (*points, *hollow)]
    scale, unit = unit_of(max(xs, default=0.0)) if name == "time" else (1.0, "")

    def draw() -> Figure:
        axes = new_axes(f"training time, {unit}" if name == "time" else "cost of a run, $", "Top-1, %")
        for letter, x, y in hollow:
            axes.plot(x / scale, y, "o", markerfacecolor="none", markeredgecolor=MUTED, markersize=4.5, zorder=2)
            axes.annotate(letter, (x / scale, y), (3, 3), textcoords="offset points", color=MUTED, fontsize=7)
        for place, x, top1 in points:
            at, error = (x / scale, top1.mean), top1.sd and SIGMAS * top1.sd
            axes.errorbar(*at, error, fmt="o", color=color_of(place), markersize=6, zorder=5, capsize=2, linewidth=1.2)
            if place < COLORED:
                axes.annotate(str(place + 1), at, (6, -9), textcoords="offset points", **_number_style(place))
        if front := pareto([(x / scale, top1.mean) for _, x, top1 in points]):
            axes.plot(*zip(*front, strict=True), color=INK, linewidth=0.9, drawstyle="steps-post", alpha=0.6, zorder=1)
        logarithmic_if_far(axes, xs)
        axes.margins(x=0.08, y=0.1)
        bottom, top = axes.get_ylim()
        if top - bottom < 0.5:  # points of top-1: a smaller range would magnify noise
            axes.set_ylim((bottom + top) / 2 - 0.25, (bottom + top) / 2 + 0.25)
        return axes.figure  # type: ignore[return-value]

    return Chart(f"top1-{name}-pareto", f"Top-1 and {'training time' if name == 'time' else 'cost'}", draw)


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point beats at the same or less x."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
