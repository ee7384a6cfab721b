"""Progress on a terminal, for a number of images that may not be known before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from common.terminal import ImageMeter, console, printable

if TYPE_CHECKING:
    from tools.predict.images import Batch


class Progress:
    """A line on stderr that shows how many images are done, if stderr is a terminal and `shown`.

    Attributes:
        total: images in all, if known.
    """

    EVERY = 0.2  # seconds

    def __init__(self, shown: bool) -> None:
        self.shown = shown and sys.stderr.isatty()
        self.last, self.total = 0.0, 0

    def counted(self, batches: Iterable[Batch], size: Callable[[], int]) -> Iterator[Batch]:
        """Pass on batches, counting their images when the next one is asked for; `size` tells their bytes so far."""
        done, weighed = 0, 0
        meter, of = ImageMeter(console(), "", self.total, shown=False), f" of {self.total:,}" if self.total else ""
        for batch in batches:
            yield batch
            done += len(batch[0])
            meter(done)
            meter.weigh(len(batch[0]), size() - weighed)
            weighed = size()
            if self.shown and (now := time.monotonic()) - self.last > self.EVERY:
                self.last = now
                self._print(f"{done:,}{of} images  {meter.figures(done)}")

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
