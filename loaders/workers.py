"""How many worker processes there are, how each one behaves, and a DataLoader that ends them in good order."""

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
ORPHANED = 2.0  # seconds between two looks at whether the trainer still lives
STUCK = 2.0  # seconds that workers have for the image that they are at when they are told to stop


def default_num_workers() -> int:
    """This rank's share of the machine's cores: at least 1, at most 8."""
    return min(MOST_WORKERS, cores())


def decode_threads(workers: int) -> int:
    """How many threads each worker (without any, the trainer) decodes a batch with: the cores that are left over."""
    return max(1, cores() // max(1, workers))


def cores() -> int:
    """This rank's share of those that the machine lets this program use; at least 1."""
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, machine // ranks)


def start_worker(_worker_id: int) -> None:
    """A worker leaves signals to the trainer, which finishes its batch, saves, and then stops the workers.

    SLURM sends SIGTERM to every process of a job, and a terminal sends SIGINT to the whole foreground group; a worker
    that dies of it takes the trainer down before it can save. So the first SIGTERM is ignored, unless the trainer
    itself sent it; a second one ends the worker. Call it where SIGTERM is blocked since the fork (`sigterm_blocked`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_heed_second_sigterm, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    # Batches are handed over through a socket in it. Made later, it would fail where nobody hears it (a full disk), and
    # the trainer would wait for ever.
    multiprocessing.util.get_temp_dir()
    sys.excepthook = _unless_trainer_left
    # What was inherited is the parent's to collect: its unused loaders must not be shut down from here.
    gc.freeze()


@contextlib.contextmanager
def sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM in this thread while worker processes are started.

    Every thread of a child inherits the mask. A child that blocks the signal later, in its main thread alone, dies of
    it: a library's thread that was started before (OpenMP's pool, unless OMP_NUM_THREADS is 1) takes the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unless_trainer_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """No traceback from the thread that hands over batches when the trainer ends in the middle of one (Ctrl-C)."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _heed_second_sigterm(trainer: int) -> None:
    """Wait for SIGTERMs: only here, with the signal blocked, does Python learn who sent one.

    A worker whose trainer was killed ends at once, in the middle of whatever it is waiting for.
    """
    heard = 0
    while os.getppid() == trainer:
        received = signal.sigtimedwait({signal.SIGTERM}, ORPHANED)
        heard += received is not None
        if received and (received.si_pid == trainer or heard == 2):
            os._exit(0 if received.si_pid == trainer else 128 + signal.SIGTERM)
    os._exit(1)


def _end_workers(iterator: Any, owner: int) -> None:
    """Tell all workers to stop, and end those that do not: stock torch waits five seconds for each that is stuck."""
    if owner != os.getpid():
        iterator._shutdown = True  # a fork's copy, collected before `start_worker` could freeze it
    if iterator._shutdown:
        return
    # The flag alone: set() would wait for ever for a lock that a stopped or killed worker holds.
    iterator._workers_done_event._flag.release()
    for queue in iterator._index_queues:
        queue.put(None)
    _remove_worker_pids(id(iterator))  # or torch takes a killed one for a fault
    iterator._worker_pids_set = False
    _wait_for(iterator._workers)
    for worker in iterator._workers:
        worker.terminate()
    _wait_for(iterator._workers)
    for worker in iterator._workers:
        worker.kill()  # one that hangs since its fork never came as far as to heed a SIGTERM
    iterator._workers_done_event = threading.Event()  # for torch's set(): no worker is left to hold its lock
    iterator._shutdown_workers()


def _wait_for(workers: list[BaseProcess]) -> None:
    """Until all have ended, or STUCK seconds are over."""
    deadline = time.monotonic() + STUCK
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))


class WorkerLoader(DataLoader[Any]):
    """A DataLoader whose persistent workers end with it, promptly.

    A stock one that is found by the garbage collector has had its queues closed before its `__del__` runs: it waits
    five seconds for each worker, because none was told to stop. Here they are told first; at the program's end, too.
    """

    slot_bytes = 0
    """Of the largest batch, where batches travel in memory that is used again (`loaders.slots`); else 0."""

    waited = 0.0
    """Seconds that the consumer has spent waiting for batches, on this rank and since the loader was made."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, which holds this loader: `next(iter(make_loader()))` must not end the workers under way.
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
                dataset.slots = slots  # the workers have it from here
                try:
                    iterator = super()._get_iterator()
                finally:
                    dataset.slots = None  # another loader of this data set has its own
                iterator.slots = slots  # as long as batches may arrive
        if self.num_workers and self.persistent_workers:
            end = weakref.finalize(self, _end_workers, iterator, os.getpid())
            atexit.register(end)  # now, so that it runs before torch's own clean-up, which waits
        return iterator

    def _make_slots(self) -> Slots | None:
        """The memory that workers hand batches over in; None where torch's new memory for each has to do."""
        forks = (self.multiprocessing_context or multiprocessing).get_start_method() == "fork"
        if not (self.slot_bytes and self.num_workers and forks):
            return None
        with contextlib.suppress(OSError):
            # A worker is at work on as many as are asked of it, and one of its batches has just arrived. torch asks for
            # the next one before the trainer lets the batch before go; only a single worker has made that one, too.
            more = 2 if self.num_workers == 1 else 1
            return Slots(self.num_workers, (self.prefetch_factor or 0) + more, self.slot_bytes)
        return None
