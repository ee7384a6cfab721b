"""Published figures of ResNet-50 by minutes on 8x A100, and their Pareto fronts (`python -m recipes --frontier`).

Every figure is from results/reference.csv; whether a recipe can be trained here, from the files in recipes/.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from recipes.published import Published

MODEL, HARDWARE = "resnet50", "8x A100"
SINGLE, FLIPPED = "single crop", "flip TTA"
PUBLISHED, INFERRED, UNVERIFIED, TARGET = "published", "inferred", "unverified", "target"
NOT_COUNTED = "not counted"
LEGEND = f"""
min           on {HARDWARE}; inferred ones are images / img/s, a lower bound
protocol      {FLIPPED}: mirrored images too, at 256 px; a front for each
figures       {UNVERIFIED}: not checked at its source; {TARGET}: the time until
              then, not a final top-1; neither is counted, or dominates
on the front  no: what is at least as fast and as accurate by the same protocol
*             not a recipe here

Source of each figure: results/reference.csv; not measured here
The plot: docs/images/frontier.svg"""


@dataclass(frozen=True)
class Point:
    """A figure with a top-1 (percent) and minutes on 8x A100."""

    figure: Published
    top1: float
    minutes: float
    basis: str  # of the minutes, or of the whole figure if it is not counted

    @property
    def recipe(self) -> str:
        """Name of the recipe, one of ours or another."""
        return self.figure.recipe

    @property
    def protocol(self) -> str:
        """What was evaluated; averaged weights (EMA) are still a single crop. Figures compare within one alone."""
        return FLIPPED if "TTA" in self.figure.protocol else SINGLE

    @property
    def is_counted(self) -> bool:
        """Whether the figure may dominate others."""
        return self.basis in (PUBLISHED, INFERRED)

    def dominates(self, other: Point) -> bool:
        """Whether this is at least as fast and as accurate by the same protocol, and one of the two more."""
        return (
            self.is_counted
            and self.protocol == other.protocol
            and self.minutes <= other.minutes
            and self.top1 >= other.top1
            and (self.minutes, self.top1) != (other.minutes, other.top1)
        )


def point_of(row: Published) -> Point | None:
    """Return a row of the table as a point; None for another model, a range, or an unknown time on 8x A100."""
    top1, minutes = row.number("top1"), row.number("minutes")
    if minutes is None or not row.hardware.startswith(HARDWARE):
        minutes = row.number("inferred_minutes")
    if top1 is None or minutes is None or row.model != MODEL:
        return None
    basis = INFERRED if row.inferred_minutes else PUBLISHED
    if row.verified.upper() == UNVERIFIED.upper():
        basis = UNVERIFIED
    elif row.verified.startswith(TARGET):
        basis = TARGET
    return Point(row, top1, minutes, basis)


def points(rows: Iterable[Published]) -> list[Point]:
    """Return the points of a table, the fastest first."""
    return sorted(filter(None, map(point_of, rows)), key=lambda point: (point.minutes, -point.top1))


def dominator(point: Point, others: Iterable[Point]) -> Point | None:
    """Return the most accurate point that dominates this one, which is on the front; None if nothing does."""
    better = [other for other in others if other.dominates(point)]
    return max(better, key=lambda other: (other.top1, -other.minutes), default=None)


def front(everything: Collection[Point], protocol: str) -> list[Point]:
    """Return the front of a protocol, the fastest first."""
    mine = [point for point in everything if point.protocol == protocol and point.is_counted]
    return [point for point in mine if dominator(point, mine) is None]


def table(everything: Collection[Point], shipped: Collection[str]) -> Table:
    """Return the points as a table; `shipped` are the names of the recipes that can be trained here."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    shown.add_column("recipe_name", no_wrap=True)
    for title in ("ep", "min", "top-1"):
        shown.add_column(title, justify="right", no_wrap=True)
    for title in ("protocol", "figures", "on the front"):
        shown.add_column(title, no_wrap=True)
    for point in everything:
        by = dominator(point, everything)
        place = f"no: {by.recipe}" if by else "yes" if point.is_counted else NOT_COUNTED
        cells = [point.figure.epochs or "-", f"{point.minutes:.0f}", f"{point.top1:.2f}", point.protocol, point.basis]
        name = point.recipe if point.recipe in shipped else f"{point.recipe} *"
        shown.add_row(name, *cells, place, style="bold" if place == "yes" else "")
    return shown


def records(everything: Collection[Point], shipped: Collection[str]) -> list[dict[str, Any]]:
    """Return the points for a program: one mapping each, with the same keys."""
    found = []
    for point in everything:
        by, row = dominator(point, everything), point.figure
        found.append(
            {
                "recipe": row.recipe,
                "variant": row.variant,
                "epochs": row.number("epochs"),
                "minutes_8xA100": point.minutes,
                "top1": point.top1,
                "top5": row.number("top5"),
                "protocol": point.protocol,
                "figures": point.basis,
                "on_front": by is None and point.is_counted,
                "dominated_by": by.recipe if by else None,
                "is_recipe_here": row.recipe in shipped,
                "source": row.source,
            }
        )
    return found


def as_json(everything: Collection[Point], shipped: Collection[str]) -> str:
    """Return the points as a JSON list."""
    return json.dumps(records(everything, shipped), indent=2)


def as_csv(everything: Collection[Point], shipped: Collection[str]) -> str:
    """Return the points as CSV with a header, without a newline at the end."""
    lines = io.StringIO()
    rows = records(everything, shipped)
    writer = csv.DictWriter(lines, rows[0] if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue().rstrip("\n")
