"""Shared memory that batches travel through from workers to the trainer, used again and again.

New shared memory for each batch, as torch takes it, costs a tenth of decoding it: the system clears each page, maps it
and takes it back. Here each worker has a few places of its own; one is free again when nothing in the trainer refers to
its batch any more, nor to a part of it.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import weakref

import numpy as np
import torch

_numbers = itertools.count()
_living: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()


class Slots:
    """Places for batches, made before the workers that are forked and share them.

    Args:
        workers: how many processes write to them.
        each: how many places each of these has (more than 256 are not needed, nor made).
        size: bytes of a place.

    Raises:
        OSError: there is no memory for them, or the process has too many files open.
    """

    def __init__(self, workers: int, each: int, size: int) -> None:
        self._each = each = min(each, 256)  # a byte can name so many
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, workers * each * self._size)
        self._base = np.frombuffer(self._memory, np.uint8).ctypes.data
        # The free places of each worker: a byte for each, which it takes out and the trainer puts back.
        self._free = [os.pipe() for _ in range(workers)]
        for reading, writing in self._free:
            os.set_blocking(reading, False)
            os.write(writing, bytes(range(each)))
        self._owner = os.getpid()
        self._held: int | None = None  # the place that a worker is filling
        self._number = next(_numbers)
        _living[self._number] = self
        weakref.finalize(self, _close, self._free).atexit = False

    def room(self, worker: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """A free place of a worker as uint8 of this shape (the worker calls this); None if there is none, or too small.

        Until `sent` has brought it to the trainer, it is the next that the worker gets: a batch that failed loses none.
        """
        if math.prod(shape) > self._size:
            return None
        if self._held is None:
            try:
                (self._held,) = os.read(self._free[worker][0], 1)
            except BlockingIOError:
                return None
        return self._array(worker, self._held, shape)

    def sent(self, images: np.ndarray, labels: np.ndarray) -> Placed | None:
        """What a worker hands over in place of a batch that lies in one of these places; None for one that does not.

        Args:
            images: what `room` gave, filled in.
            labels: int64 [B].
        """
        index, beyond = divmod(images.ctypes.data - self._base, self._size)
        if beyond or not 0 <= index < self._each * len(self._free):
            return None
        self._held = None
        return Placed(self._number, *divmod(index, self._each), images.shape, labels)

    def take(self, worker: int, place: int, shape: tuple[int, ...]) -> np.ndarray:
        """What lies in a place (the trainer calls this), which is free when the array's memory is no longer used."""
        array = self._array(worker, place, shape)
        weakref.finalize(array, self._give_back, worker, place).atexit = False
        return array

    def _array(self, worker: int, place: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.ndarray(shape, np.uint8, self._memory, (worker * self._each + place) * self._size)

    def _give_back(self, worker: int, place: int) -> None:
        if os.getpid() == self._owner:  # and not a fork that collects its copy of the trainer's batch
            os.write(self._free[worker][1], bytes([place]))


class Placed:
    """A batch on its way: all that is sent is where it lies. It arrives as (images, labels)."""

    def __init__(self, slots: int, worker: int, place: int, shape: tuple[int, ...], labels: np.ndarray) -> None:
        self._parts = (slots, worker, place, shape, labels)

    def __reduce__(self) -> tuple[object, ...]:
        return _arrive, self._parts


def _arrive(
    slots: int, worker: int, place: int, shape: tuple[int, ...], labels: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch, uint8 [B, 3, H, W] in channels_last and int64 [B].

    Raises:
        RuntimeError: its loader is gone, or lives in another process.
    """
    there = _living.get(slots)
    if there is None:
        raise RuntimeError("a batch has arrived where its loader is not")
    # from_numpy, because a tensor and all its views hold this very array; a view of numpy's would not.
    return torch.from_numpy(there.take(worker, place, shape)).permute(0, 3, 1, 2), torch.from_numpy(labels)


def _close(pipes: list[tuple[int, int]]) -> None:
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)
