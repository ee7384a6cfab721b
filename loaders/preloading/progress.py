"""How far a copy is: a bar in a terminal, a line a minute in a log file."""

import time
from collections import deque
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

LOG_SECONDS = 60.0  # between lines, without a terminal
RATE_SECONDS = 10.0  # over which MB/s are taken
_DRAW_SECONDS = 0.1


def amount(count: float) -> str:
    """A number of bytes, in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


class Progress:
    """Shows how much is copied, how fast, and how long it will take; a context manager.

    Args:
        what: what is being done, as in `copying`.
        total: bytes.
        shown: False for every process but one.
    """

    def __init__(self, what: str, total: int, shown: bool) -> None:
        self.what, self.total, self.shown = what, total, shown
        self._console = Console(soft_wrap=True, highlight=False)
        self._window = deque([(time.monotonic(), 0)])
        self._printed = self._drawn = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        if self.shown and self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task(self.what, total=max(1, self.total), figures="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int) -> None:
        """So many bytes are there; cheap enough to be called at every turn."""
        now = time.monotonic()
        if not self.shown or now - self._drawn < _DRAW_SECONDS:
            return
        self._drawn = now
        self._window.append((now, done))
        while now - self._window[0][0] > RATE_SECONDS and len(self._window) > 2:
            self._window.popleft()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, figures=self._figures(done))
        elif now - self._printed >= LOG_SECONDS:
            self._printed = now
            self._console.print(f"{self.what}: {self._figures(done)}", markup=False)

    def _figures(self, done: int) -> str:
        """How much of how much, how fast, how long still."""
        (began, before), (now, _) = self._window[0], self._window[-1]
        speed = (done - before) / (now - began) if now > began else 0.0
        left = f", {timedelta(seconds=round((self.total - done) / speed))} left" if speed > 0 else ""
        return f"{amount(done)} of {amount(self.total)}, {amount(speed)}/s{left}"
