"""How far the work is: a bar with img/s and the time left, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

LOG_SECONDS = 30.0  # between lines, without a terminal
RATE_SECONDS = 20.0  # over which img/s are taken


class Meter:
    """Shows one piece of work; a context manager.

    Args:
        console: where to.
        what: the work, in a word or two.
        total: pictures it consists of.
    """

    def __init__(self, console: Console, what: str, total: int) -> None:
        self.console, self.what, self.total = console, what, total
        self._began = self._logged = time.monotonic()
        self._window = deque([(self._began, 0)])
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total, figures="")

    def __enter__(self) -> Meter:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, done: int) -> None:
        """Show that `done` pictures have been done."""
        now = time.monotonic()
        self._window.append((now, done))
        while now - self._window[0][0] > RATE_SECONDS:
            self._window.popleft()
        self._bar.update(self._task, completed=done, figures=self._figures(now, done))
        if not self.console.is_terminal and now - self._logged > LOG_SECONDS:
            self._logged = now
            share = 100 * done / max(1, self.total)
            self.console.print(f"{self.what} {share:.0f}% {self._figures(now, done)}", highlight=False)

    def _figures(self, now: float, done: int) -> str:
        """img/s, and the time left at the rate since the beginning (a disk's slow minutes come and go)."""
        (t0, n0), (t1, n1) = self._window[0], self._window[-1]
        rate = (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
        left = clock((self.total - done) * (now - self._began) / done) if done else "..."
        return f"{rate:,.0f} img/s  left {left}"


def clock(seconds: float) -> str:
    """A duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True)
class Row:
    """What became of a split.

    Args:
        split: `train` or `val`.
        pictures: how many are stored.
        files: how many hold them.
        bytes: how many they take.
        made: pictures that this program looked at, and an earlier, interrupted one did not.
        seconds: this program took, without checking.
    """

    split: str
    pictures: int
    files: int
    bytes: int
    made: int
    seconds: float


def result_table(title: str, rows: Sequence[Row]) -> Table:
    """The table that a conversion ends with."""
    table = Table(title=title, title_justify="left")
    for name in ("split", "pictures", "files", "bytes", "seconds", "img/s"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for row in rows:
        rate = f"{row.made / row.seconds:,.0f}" if row.made and row.seconds else "-"
        cells = (f"{row.pictures:,}", f"{row.files:,}", f"{row.bytes / 1e6:,.1f} MB", f"{row.seconds:,.1f}", rate)
        table.add_row(row.split, *cells)
    return table
