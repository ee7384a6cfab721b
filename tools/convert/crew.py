"""Worker processes that count their images, stop when told to, and never outlive the program."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self, TypeVar

import torch

from common.errors import DataError

Result = TypeVar("Result")
TICK = 0.2  # seconds between looks at the count

_done: Any = None  # in a worker: the shared count of all workers' images


def report(images: int) -> None:
    """Count images as done; for use in a worker."""
    with _done.get_lock():
        _done.value += images


def _start(done: Any, stop: Any) -> None:
    """Set up a worker process."""
    global _done
    _done = done
    for number in (signal.SIGINT, signal.SIGTERM):  # terminals and schedulers send them to all processes;
        signal.signal(number, signal.SIG_IGN)  # the program stops its workers itself
    warnings.simplefilter("ignore")  # about odd EXIF data and the like
    torch.set_num_threads(1)
    threading.Thread(target=_end_in_time, args=(stop,), daemon=True).start()


def _end_in_time(stop: Any) -> None:
    """Exit in the middle of any work once the program asks for it, has ended, or was killed."""
    program = multiprocessing.parent_process()
    assert program is not None
    while program.is_alive() and not stop.value:
        program.join(TICK)
    os._exit(1)


class Crew:
    """A context of worker processes; an exception ends them in the middle of their work.

    They may be killed at any time: whatever they write appears completely or not at all.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._done = multiprocessing.Value("q", 0)
        self._stop = multiprocessing.RawValue("b", 0)
        self._pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(self._done, self._stop))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.value = kind is not None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self, work: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], progress: Callable[[int], None]
    ) -> Iterator[tuple[tuple[Any, ...], Result]]:
        """Do jobs in parallel, and yield each with its result in the order in which they end.

        `work` is a function at a module's top level; `jobs`, its arguments, are consumed as needed; `progress` is
        called several times a second with the number of images done.
        """
        count = self._done.get_obj()  # read without the lock, which a killed worker may hold forever
        before, left = count.value, iter(jobs)
        running: dict[Future[Result], tuple[Any, ...]] = {}
        try:
            while True:
                while len(running) < 2 * self.workers and (job := next(left, None)) is not None:
                    running[self._pool.submit(work, *job)] = job
                if not running:
                    break
                ended, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                progress(count.value - before)
                for future in ended:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, probably for lack of memory. Repeat the command with fewer --workers to "
                "continue."
            ) from error
