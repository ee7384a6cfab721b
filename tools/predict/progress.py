"""Progress on a terminal, for a number of images that is not known before."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from common.terminal import Rate, printable

if TYPE_CHECKING:
    from tools.predict.images import Batch


class Progress:
    """A line on stderr that shows how many images are done, if stderr is a terminal and `shown`."""

    EVERY = 0.2  # seconds

    def __init__(self, shown: bool) -> None:
        self.shown = shown and sys.stderr.isatty()
        self.rate, self.last = Rate(), 0.0

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass on batches, counting their images when the next one is asked for."""
        done = 0
        self.rate.add(time.monotonic(), 0)
        for batch in batches:
            yield batch
            done += len(batch[0])
            self.rate.add(now := time.monotonic(), done)
            if self.shown and now - self.last > self.EVERY:
                self.last = now
                self._print(f"{done:,} images  {self.rate.per_second:,.0f} img/s")

    def line(self, text: str) -> None:
        """Print a sentence on a line of its own."""
        self.end()
        print(printable(text), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the line."""
        if self.shown:
            self._print("")

    def _print(self, text: str) -> None:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)  # from the start of the line, which is cleared
