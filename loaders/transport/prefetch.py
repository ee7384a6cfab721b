"""Threads that download the next shards while the trainer uses the images of the current ones."""

import atexit
import threading
from collections.abc import Callable

import numpy as np

from common.errors import sentence_of
from common.store_faults import StoreOutOfReach

AHEAD = 16  # shards downloaded ahead of the trainer (usually 64 MiB each)
THREADS = 4


class Prefetcher:
    """Download an epoch's shards in the order of first use, at most `ahead` of them before the trainer.

    Faults are not raised here: the worker that needs the shard meets the same fault and raises it where the trainer
    sees it, or succeeds. After an outage, the next shard is tried.

    Args:
        shards: int64 [positions], the shard of each position of the epoch.
        fetch: downloads one shard, given its number.
        ahead: shards to download ahead of the trainer.
    """

    def __init__(self, shards: np.ndarray, fetch: Callable[[int], None], ahead: int = AHEAD) -> None:
        first_use = np.unique(shards, return_index=True)[1]
        self._positions = np.sort(first_use)
        self._shards = shards[self._positions]
        self._fetch = fetch
        self._next = 0
        self._ahead = self._allowed = ahead
        self._changed = threading.Condition()
        self._stopped = False

    def __enter__(self) -> Callable[[int], None]:
        atexit.register(self._stop)  # the program may end in mid-epoch
        for number in range(min(THREADS, len(self._shards))):  # daemons: a download must not keep a program from ending
            threading.Thread(target=self._run, name=f"prefetch-{number}", daemon=True).start()
        return self.reached

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self._stop)
        self._stop()

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def reached(self, position: int) -> None:
        """Allow more downloads, as the trainer now needs the sample at `position` of the epoch."""
        needed = int(np.searchsorted(self._positions, position, side="right"))
        if needed + self._ahead > self._allowed:
            with self._changed:
                self._allowed = needed + self._ahead
                self._changed.notify_all()

    def _take(self) -> int | None:
        """Wait until another shard may be downloaded and return its number; None at the end."""
        with self._changed:
            end = len(self._shards)
            self._changed.wait_for(lambda: self._stopped or self._next < self._allowed or self._next == end)
            if self._stopped or self._next == end:
                return None
            self._next += 1
            return int(self._shards[self._next - 1])

    def _run(self) -> None:
        while (shard := self._take()) is not None:
            try:
                self._fetch(shard)
            except StoreOutOfReach:
                continue
            except Exception as error:
                if sentence_of(error) is None and not self._stopped:
                    raise  # a bug of ours: neither a fault of the data nor an effect of the program's end
                return
