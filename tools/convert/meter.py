"""How far a conversion is, and the table that it ends with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from common.terminal import Meter, clock


class ImageMeter(Meter):
    """Images, in img/s."""

    def figures(self, done: int) -> str:
        """img/s, and the time left at the rate since the beginning (a disk's slow minutes come and go)."""
        left = clock((self.total - done) * (time.monotonic() - self.began) / done) if done else "..."
        return f"{self.rate.per_second:,.0f} img/s  left {left}"


@dataclass(frozen=True)
class Row:
    """What became of a split.

    Args:
        split: `train` or `val`.
        images: how many are stored.
        files: how many hold them.
        bytes: how many they take.
        made: images that this program looked at, and an earlier, interrupted one did not.
        seconds: this program took, without checking.
    """

    split: str
    images: int
    files: int
    bytes: int
    made: int
    seconds: float


def result_table(title: str, rows: Sequence[Row]) -> Table:
    """The table that a conversion ends with."""
    table = Table(title=title, title_justify="left")
    for name in ("split", "images", "files", "bytes", "seconds", "img/s"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for row in rows:
        rate = f"{row.made / row.seconds:,.0f}" if row.made and row.seconds else "-"
        cells = (f"{row.images:,}", f"{row.files:,}", f"{row.bytes / 1e6:,.1f} MB", f"{row.seconds:,.1f}", rate)
        table.add_row(row.split, *cells)
    return table
