"""The look of charts: a palette for color-blind readers, in light and dark, and figures as SVG and PNG."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colors ("Color Universal Design", 2008) that show on white. A page replaces each with a CSS variable,
# which has a light and a dark value.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK_SERIES = ("#4ea8de", "#f4915a", "#3ecf9f", "#e6a3cb", "#f2b640", "#9ad6f7")
INK, MUTED, GRID, REST = "#1b1f24", "#6a7079", "#dfe3e8", "#a9b0b8"
VARIABLES = {color: f"var(--s{number})" for number, color in enumerate(SERIES)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    REST: "var(--rest)",
}
SIZE = (4.7, 3.1)  # inches: the width of a phone, where text keeps nearly this size
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: readable aloud, searchable, sharp in print
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
    """Return empty axes, alone on a figure, with a light grid."""
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
    """Move heights between 0 and 1 at least `gap` apart, each as little as possible."""
    order = sorted(range(len(positions)), key=lambda at: positions[at])
    clusters: list[tuple[float, list[int]]] = []  # the middle of each, and its members
    for at in order:
        clusters.append((positions[at], [at]))
        while len(clusters) > 1:
            (low, below), (high, above) = clusters[-2:]
            if high - low >= gap * (len(below) + len(above)) / 2:
                break
            members = below + above
            clusters[-2:] = [(sum(positions[one] for one in members) / len(members), members)]
    moved = list(positions)
    for middle, members in clusters:
        half = (len(members) - 1) / 2 * gap
        middle = min(max(middle, half), 1 - half)
        for place, at in enumerate(members):
            moved[at] = middle - half + place * gap
    return moved


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as an <svg> element with the page's colors, its parent's width, and ids made unique by `salt`."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    element = text.getvalue()
    element = element[element.index("<svg") :].strip()
    for side in ("width", "height"):
        element = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"font: [\w .]*?([\d.]+px) [^;\"]*", r"font-size: \1", element)  # the font itself is the page's
    for color, variable in VARIABLES.items():
        element = element.replace(color, variable)
    # Ids such as text_12 are the same in every figure; those of clip paths and marks are hashes already.
    return re.sub(r' id="[\w.]+_\d+"', "", element)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG on white."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=150, facecolor="white")
    return content.getvalue()
