"""Worker processes: how many, how each handles signals, and a DataLoader that stops them cleanly."""

import atexit
import contextlib
import gc
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from loaders.slots import Slots

MOST_WORKERS = 8
ORPHANED = 2.0  # seconds between checks that the trainer is alive
STUCK = 2.0  # seconds that workers have to finish the current image when they have to stop


def default_num_workers() -> int:
    """Return this rank's share of the machine's cores: at least 1, at most 8."""
    return min(MOST_WORKERS, cores())


def decode_threads(workers: int) -> int:
    """Return the decoding threads per worker (of the trainer, if there are no workers): an equal share of the cores."""
    return max(1, cores() // max(1, workers))


def cores() -> int:
    """Return this rank's share of the cores available to this process; at least 1."""
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, machine // ranks)


def start_worker(_worker_id: int) -> None:
    """Make a worker ignore signals, so that the trainer can finish its batch, save, and then stop the workers.

    SLURM sends SIGTERM to every process of a job, and a terminal sends SIGINT to the whole foreground group; a worker
    that exits on it would take the trainer down before it can save. The first SIGTERM is therefore ignored, unless the
    trainer sent it; a second one ends the worker. SIGTERM must have been blocked since the fork (`sigterm_blocked`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_heed_second_sigterm, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    # Batches are sent through a socket in this folder. If creating it failed later (a full disk), the error would be
    # lost in a thread and the trainer would wait forever.
    multiprocessing.util.get_temp_dir()
    sys.excepthook = _print_unless_disconnected
    # Inherited objects belong to the parent: collecting its unused loaders here would shut them down.
    gc.freeze()


@contextlib.contextmanager
def sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM in this thread while worker processes are started.

    All threads of a child inherit the mask. If a child blocked the signal later, in its main thread alone, an existing
    thread of a library (OpenMP's pool, unless OMP_NUM_THREADS is 1) would receive it and the child would die.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print no traceback if the trainer exits (Ctrl-C) while a thread is sending it a batch."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _heed_second_sigterm(trainer: int) -> None:
    """Exit when the trainer sends SIGTERM, on a second SIGTERM from anyone, or when the trainer is gone.

    Waiting for a blocked signal is the only way in Python to see who sent it.
    """
    count = 0
    while os.getppid() == trainer:
        received = signal.sigtimedwait({signal.SIGTERM}, ORPHANED)
        count += received is not None
        if received and (received.si_pid == trainer or count == 2):
            os._exit(0 if received.si_pid == trainer else 128 + signal.SIGTERM)
    os._exit(1)


def _end_workers(iterator: Any, owner: int) -> None:
    """Stop all workers, and kill those that hang; stock torch waits five seconds for each of them."""
    if owner != os.getpid():
        iterator._shutdown = True  # a fork's copy, collected before `start_worker` could freeze it
    if iterator._shutdown:
        return
    # Only the flag: set() would wait forever for a lock that a stopped or killed worker holds.
    iterator._workers_done_event._flag.release()
    for queue in iterator._index_queues:
        queue.put(None)
    _remove_worker_pids(id(iterator))  # otherwise torch reports a killed worker as an error
    iterator._worker_pids_set = False
    _wait_for(iterator._workers)
    for worker in iterator._workers:
        worker.terminate()
    _wait_for(iterator._workers)
    for worker in iterator._workers:
        worker.kill()  # a worker that has hung since its fork does not handle SIGTERM
    iterator._workers_done_event = threading.Event()  # for torch's set(), as no worker is left to hold its lock
    iterator._shutdown_workers()


def _wait_for(workers: list[BaseProcess]) -> None:
    """Wait until all have exited, or for STUCK seconds."""
    deadline = time.monotonic() + STUCK
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))


class WorkerLoader(DataLoader[Any]):
    """A DataLoader whose persistent workers exit promptly with it.

    When a stock one is garbage-collected, its queues are closed before `__del__` can stop the workers, so it waits five
    seconds for each. This one stops the workers first, at the program's exit too.
    """

    slot_bytes = 0
    """Size of the largest batch if batches travel in reusable memory (`loaders.slots`); else 0."""

    waited = 0.0
    """Seconds that this rank has waited for batches since the loader was made."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator keeps this loader alive: `next(iter(make_loader()))` must not stop running workers.
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _get_iterator(self) -> Any:
        dataset: Any = self.dataset
        slots = self._make_slots()
        with sigterm_blocked():
            if slots is None:
                iterator: Any = super()._get_iterator()
            else:
                dataset.slots = slots  # inherited by the forked workers
                try:
                    iterator = super()._get_iterator()
                finally:
                    dataset.slots = None  # another loader of this data set has other slots
                iterator.slots = slots  # keeps them alive as long as batches may arrive
        if self.num_workers and self.persistent_workers:
            end = weakref.finalize(self, _end_workers, iterator, os.getpid())
            atexit.register(end)  # registered now, it runs before torch's own cleanup, which waits
        return iterator

    def _make_slots(self) -> Slots | None:
        """Make the memory that batches travel in; None if they need torch's (no workers, no fork, no memory)."""
        forks = (self.multiprocessing_context or multiprocessing).get_start_method() == "fork"
        if not (self.slot_bytes and self.num_workers and forks):
            return None
        with contextlib.suppress(OSError):
            # prefetch_factor batches in preparation and one in use. torch requests the next one before the trainer
            # frees the previous one; a single worker has made both, so that it needs one slot more.
            more = 2 if self.num_workers == 1 else 1
            return Slots(self.num_workers, (self.prefetch_factor or 0) + more, self.slot_bytes)
        return None
