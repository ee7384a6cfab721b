"""Draw the published figures: top-1 by minutes on 8x A100.

The table of the same figures is `python -m recipes --frontier`.

python -m benchmarks.frontier
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Bbox

from common import command
from common.whole_files import whole_file
from recipes.frontier import FLIPPED, HARDWARE, INFERRED, PUBLISHED, SINGLE, Point, front, points
from recipes.published import read_published
from tools.report.drawing import GRID, INK, MUTED, SERIES, STYLE

TARGET = Path(__file__).parent.parent / "docs/images/frontier.svg"
SIZE = (8.6, 5.2)  # inches
LOOK = STYLE | {"svg.hashsalt": "frontier", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"]}
COLORS = {SINGLE: SERIES[0], FLIPPED: SERIES[1]}
MARKS = {SINGLE: "o", FLIPPED: "D"}
MINUTES = (15, 30, 60, 120, 240, 480, 960)
OFFSETS = [  # of a label from its mark in points, the preferred first, with its alignment
    (side * x, y * far, {1: "left", 0: "center", -1: "right"}[side])
    for far in (1, 1.6, 2.4)
    for side, x, y in ((1, 7, 0), (-1, 7, 0), (0, 0, 11), (0, 0, -11), (1, 5, 9), (-1, 5, 9), (1, 5, -9), (-1, 5, -9))
]


def label(point: Point, times: int) -> str:
    """Return the text next to a mark; `times` is how often its recipe occurs."""
    epochs = f", {point.figure.epochs} ep" if times > 1 else ""
    return f"{point.recipe}{epochs}{'?' if not point.is_counted else ''}"


def labels(everything: Sequence[Point]) -> list[str]:
    """Return the texts next to the marks, in order."""
    times = Counter(point.recipe for point in everything)
    return [label(point, times[point.recipe]) for point in everything]


def draw(everything: Sequence[Point]) -> Figure:
    """Return the plot."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.065, 0.1, 0.92, 0.88))
        axes.set_xscale("log")
        axes.set_xticks(MINUTES, [str(minutes) for minutes in MINUTES])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(MINUTES[0] * 0.75, MINUTES[-1] * 1.05)
        axes.set_xlabel(f"minutes on {HARDWARE}, logarithmic")
        axes.set_ylabel("published top-1 of ResNet-50 on ImageNet, %")
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for protocol, color in COLORS.items():
            axes.plot(*zip(*stairs(everything, protocol), strict=True), color=color, linewidth=1.1, alpha=0.7, zorder=2)
        for point in everything:
            axes.plot(point.minutes, point.top1, markersize=6.5, zorder=4, linestyle="none", **mark(point))
        top = max(point.top1 for point in everything)
        axes.set_ylim(min(point.top1 for point in everything) - 0.4, top + 0.4)
        legend(axes)
        place_labels(axes, everything, labels(everything))
    return figure


def stairs(everything: Sequence[Point], protocol: str) -> list[tuple[float, float]]:
    """Return the corners of a front: minutes and top-1."""
    best = front(everything, protocol)
    turns = [(after.minutes, before.top1) for before, after in pairwise(best)]
    return sorted([*turns, *((point.minutes, point.top1) for point in best)])


def mark(point: Point) -> dict[str, Any]:
    """Return the look of a mark: its shape by protocol; filled if published, hollow if inferred, gray if neither."""
    color = COLORS[point.protocol] if point.is_counted else MUTED
    fill = color if point.basis == PUBLISHED else "white"
    return {"marker": MARKS[point.protocol], "markeredgecolor": color, "markerfacecolor": fill}


def legend(axes: Axes) -> None:
    """Explain marks and lines."""
    color = COLORS[SINGLE]
    looks: list[tuple[str, dict[str, Any]]] = [
        (f"{SINGLE}, and its Pareto front", {"marker": MARKS[SINGLE], "color": color, "linewidth": 1.1}),
        (f"{FLIPPED}, 256 px", {"marker": MARKS[FLIPPED], "color": COLORS[FLIPPED], "linewidth": 1.1}),
        (
            f"minutes {INFERRED}: a lower bound",
            {"marker": "o", "markerfacecolor": "white", "color": color, "linestyle": "none"},
        ),
        (
            "?: unverified, or a target; not counted",
            {"marker": "o", "markerfacecolor": "white", "color": MUTED, "linestyle": "none"},
        ),
    ]
    handles = [Line2D([], [], label=text, markersize=6.5, **look) for text, look in looks]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=8.5)


def place_labels(axes: Axes, everything: Sequence[Point], texts: Sequence[str]) -> None:
    """Write each label at the offset where it overlaps the fewest marks and other labels."""
    axes.figure.canvas.draw()
    at = axes.transData.transform([(point.minutes, point.top1) for point in everything])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    for protocol in COLORS:
        taken += map(Bbox, pairwise(axes.transData.transform(stairs(everything, protocol)).tolist()))
    if shown := axes.get_legend():
        taken.append(shown.get_window_extent())
    for point, text in sorted(zip(everything, texts, strict=True), key=lambda each: -each[0].top1):  # from the top
        written = axes.annotate(text, (point.minutes, point.top1), (0, 0), textcoords="offset points", va="center")
        written.set(fontsize=8, color=INK if point.is_counted else MUTED, zorder=5)

        def crossed(offset: tuple[float, float, str], written: Annotation = written) -> int:
            extent = moved(written, offset)
            outside = extent.x0 < axes.bbox.x0 or extent.x1 > axes.bbox.x1
            return 100 * outside + sum(extent.overlaps(other) for other in taken)

        taken.append(moved(written, min(OFFSETS, key=crossed)))


def moved(written: Annotation, offset: tuple[float, float, str]) -> Bbox:
    """Move a label, and return where it is then, with a margin at its sides, in pixels."""
    written.set(position=offset[:2], horizontalalignment=offset[2])
    return written.get_window_extent().padded(4, 1)


def description(everything: Sequence[Point]) -> str:
    """Return the figures as text, for readers who do not see the plot."""
    return "; ".join(f"{point.recipe} {point.minutes:g} min {point.top1:g} % {point.protocol}" for point in everything)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; return 0."""
    words = command.parser("benchmarks.frontier", __doc__)
    words.add_argument("-o", "--output", type=Path, default=TARGET, metavar="FILE", help="docs/images/frontier.svg")
    target = words.parse_args(argv).output
    everything = points(read_published())
    metadata = {"Date": None, "Creator": None, "Description": description(everything)}
    with matplotlib.rc_context(LOOK), whole_file(target) as file:
        draw(everything).savefig(file, format="svg", facecolor="white", metadata=metadata)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
