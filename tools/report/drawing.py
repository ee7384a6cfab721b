"""How charts look: a palette that everybody can tell apart, in light and in dark, and figures as SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours ("Color Universal Design", 2008) that show on white. A page replaces each by the variable of
# that name, of which it has a light and a dark value.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK_SERIES = ("#4ea8de", "#f4915a", "#3ecf9f", "#e6a3cb", "#f2b640", "#9ad6f7")
INK, MUTED, GRID, REST = "#1b1f24", "#6a7079", "#dfe3e8", "#a9b0b8"
VARIABLES = {colour: f"var(--s{number})" for number, colour in enumerate(SERIES)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    REST: "var(--rest)",
}
SIZE = (4.7, 3.1)  # inches: as wide as a telephone at nearly the size that is printed here
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and printed sharp
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
}


def new_axes(x_label: str, y_label: str) -> Axes:
    """Empty axes, alone on a figure, with a quiet grid."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.13, 0.15, 0.81, 0.81))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        figure.patch.set_alpha(0)
    return axes


def spread_labels(positions: Sequence[float], gap: float) -> list[float]:
    """The same heights, from 0 to 1, moved apart by `gap` at least, each as near to its own as may be."""
    order = sorted(range(len(positions)), key=lambda at: positions[at])
    clusters: list[tuple[float, list[int]]] = []  # the middle of each, and who is in it
    for at in order:
        clusters.append((positions[at], [at]))
        while len(clusters) > 1 and _overlap(clusters[-2], clusters[-1], gap):
            members = clusters[-2][1] + clusters[-1][1]
            clusters[-2:] = [(sum(positions[one] for one in members) / len(members), members)]
    moved = list(positions)
    for middle, members in clusters:
        half = (len(members) - 1) / 2 * gap
        middle = min(max(middle, half), 1 - half)
        for place, at in enumerate(members):
            moved[at] = middle - half + place * gap
    return moved


def _overlap(one: tuple[float, list[int]], other: tuple[float, list[int]], gap: float) -> bool:
    return other[0] - one[0] < gap * (len(one[1]) + len(other[1])) / 2


def svg(figure: Figure, salt: str) -> str:
    """A figure as an <svg> element that takes its colours from the page and its width from where it stands.

    Args:
        figure: it is left as it was.
        salt: makes the element's ids unlike those of the page's other figures.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    element = text.getvalue()
    element = element[element.index("<svg") :].strip()
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"font: (?:[\d.]+px|[\w .]*?[\d.]+px) [^;\"]*", _own_font, element)
    for colour, variable in VARIABLES.items():
        element = element.replace(colour, variable)
    # Ids as #text_12 come again in every figure; those of clip paths and marks are hashes already.
    return re.sub(r' id="[\w.]+_\d+"', "", element)


def _own_font(match: re.Match[str]) -> str:
    """The size of a text, in the page's own type."""
    size = re.search(r"[\d.]+px", match[0])
    return f"font-size: {size[0]}" if size else match[0]


def png(figure: Figure) -> bytes:
    """A figure as an image on white, for pages that have no dark side."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=150, facecolor="white")
    return content.getvalue()
