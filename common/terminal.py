"""Terminal helpers for the programs other than training: argument types, consoles, progress bars and durations."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from common.errors import ConfigError
from common.output import take_any_text, visible
from common.sizes import amount

LOG_SECONDS = 60.0  # between progress lines in a log file, which would otherwise become unreadable
LEAST_BAR = 10  # columns
RATE_SECONDS = 10.0  # averaging window of rates: long enough to be steady, short enough to show a stall


def local_path(word: str) -> Path:
    """Parse the path of a file or folder on this machine."""
    if "://" in word:
        raise argparse.ArgumentTypeError(f"{word} given, but it must be a path on this machine")
    return Path(word)


def positive(word: str) -> int:
    """Parse a command-line argument that must be a whole number of at least 1."""
    return _from(1, word)


def not_negative(word: str) -> int:
    """Parse a command-line argument that must be a whole number of at least 0."""
    return _from(0, word)


def _from(least: int, word: str) -> int:
    try:
        number = int(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} given, but it must be a whole number") from error
    if number < least:
        raise argparse.ArgumentTypeError(f"{word} given, but it must be {least} or more")
    return number


def check_writable(path: Path) -> None:
    """Check that a file can be written, before minutes of work depend on it; a ConfigError if not."""
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path.absolute()}: cannot be written ({error.strerror}).") from error
    if not existed:
        path.unlink()


class _VisibleConsole(Console):
    """A console that escapes control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As Console's, of `visible` text."""
        return super().render_str(visible(text), **options)


def console(log_width: int = 100) -> Console:
    """Return a console for tables, as wide as the terminal or COLUMNS; at least `log_width` columns in a log file.

    Paths are printed literally: brackets are not markup, and control characters and bytes that are not UTF-8 are
    escaped.
    """
    take_any_text()
    made = _VisibleConsole(soft_wrap=True, highlight=False, markup=False)
    if "COLUMNS" not in os.environ:
        if made.is_dumb_terminal:
            made.size = shutil.get_terminal_size()  # Rich assumes 80 columns for every dumb terminal
        elif not made.is_terminal:
            made.width = max(log_width, made.width)
    return made


def printable(name: str) -> str:
    """Return a name with unprintable characters escaped, such as line breaks and bytes that are not UTF-8."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def clock(seconds: float) -> str:
    """Format a duration as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class FittedProgress(Progress):
    """A one-line progress display that fits the console's width; created by `bar`."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Drop what does not fit a narrow console: first the elapsed time, then the bar, then the last figures."""
        table = Table.grid(padding=(0, 1), pad_edge=False)
        for task in tasks:
            cells: list[Any] = [column(task) for column in self.columns]  # type: ignore[operator]
            _, drawn, _, figures, passed, *_ = line = list(cells)
            if self._excess(line) > 0:
                line.remove(passed)
            if self._excess(line) > 0:
                line.remove(drawn)
            while self._excess(line) > 0 and "  " in figures.plain:
                figures.right_crop(len(figures) - figures.plain.rindex("  "))
            table.expand = drawn in line
            for cell in line:
                table.add_column(no_wrap=isinstance(cell, Text))
            table.add_row(*line)
        return table

    def _excess(self, line: list[Any]) -> int:
        """Return by how many columns a line exceeds the console's width."""
        needed = (len(cell) if isinstance(cell, Text) else LEAST_BAR for cell in line)
        return sum(needed) + len(line) - 1 - self.console.width


def bar(on: Console, *more: ProgressColumn, transient: bool = False) -> Progress:
    """Return a progress bar as wide as the console that shows the task field `figures`, elapsed time and `more`."""
    return FittedProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
        *more,
        console=on,
        expand=True,
        transient=transient,
    )


class Rate:
    """Items per second over the last RATE_SECONDS."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Record that `done` items were done at `now` seconds."""
        self._counts.append((now, done))
        while now - self._counts[0][0] > RATE_SECONDS and len(self._counts) > 2:
            self._counts.popleft()

    @property
    def per_second(self) -> float:
        """Current rate; 0 before the second record."""
        (t0, n0), (t1, n1) = self._counts[0], self._counts[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


class Meter(ABC):
    """Context manager that shows the progress of a task: a bar on a terminal, otherwise a line per minute.

    Args:
        what: the task, in a word or two.
        total: number of items.
        shown: False in all processes but one.
    """

    def __init__(self, console: Console, what: str, total: int, shown: bool = True) -> None:
        self.console, self.what, self.total, self.shown = console, what, total, shown
        self.rate, self.began = Rate(), time.monotonic()
        self.rate.add(self.began, 0)
        self._logged = self.began
        self._bar = bar(console, transient=True)
        self._task = self._bar.add_task(what, total=max(1, total), figures="")

    @abstractmethod
    def figures(self, done: int) -> str:
        """Return the speed and the remaining time as text."""

    def __enter__(self) -> Self:
        if self.shown and self.console.is_interactive:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.console.is_interactive:
            self._bar.stop()

    def __call__(self, done: int) -> None:
        """Show that `done` items are done; cheap enough to call for every item."""
        now = time.monotonic()
        self.rate.add(now, done)
        if not self.shown:
            return
        self._bar.update(self._task, completed=done, figures=self.figures(done))
        if not self.console.is_interactive and now - self._logged > LOG_SECONDS:
            self._logged = now
            share = 100 * done / max(1, self.total)
            self.console.print(f"{self.what} {share:.0f}% {self.figures(done)}", highlight=False, markup=False)


class ImageMeter(Meter):
    """A meter of images; `total` is 0 if it is unknown, `size` is the bytes of all of them, if they are known."""

    def __init__(self, console: Console, what: str, total: int, shown: bool = True, size: int = 0) -> None:
        super().__init__(console, what, total, shown)
        self._weighed, self._bytes = (total, size) if size else (0, 0)

    def weigh(self, images: int, size: int) -> None:
        """Add the bytes of some images, of whose mean the speed is calculated."""
        self._weighed, self._bytes = self._weighed + images, self._bytes + size

    def figures(self, done: int) -> str:
        """Return img/s, the time left at the average rate, since a disk's slow minutes come and go, and bytes/s."""
        left = clock((self.total - done) * (time.monotonic() - self.began) / done) if done else "..."
        rate = self.rate.per_second
        left = f"  left {left}" if self.total else ""
        speed = f"  {amount(rate * self._bytes / self._weighed)}/s" if self._weighed else ""
        return f"{rate:,.0f} img/s{left}{speed}"


class ByteMeter(Meter):
    """A meter of the bytes of files."""

    files = 0  # that are done

    def figures(self, done: int) -> str:
        """Return the bytes that are done, the speed, the files per second so far, and the time left at this speed."""
        speed, passed = self.rate.per_second, time.monotonic() - self.began
        left = f", {clock((self.total - done) / speed)} left" if speed > 0 else ""
        files = f", {self.files / passed:,.0f} files/s" if self.files else ""
        return f"{amount(done)} of {amount(self.total)}, {amount(speed)}/s{files}{left}"
