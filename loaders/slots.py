"""Reusable shared memory slots that carry batches from workers to the trainer.

torch allocates new shared memory for each batch, which costs a tenth of decoding it: the system clears, maps and frees
every page. Here each worker has a few slots; a slot is recycled once the trainer holds no reference to its batch.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import weakref
from typing import Any

import numpy as np
import torch

_numbers = itertools.count()
_living: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()


class Slots:
    """Slots of `size` bytes for batches, `each` (at most 256) per worker, made before the workers are forked.

    Raises:
        OSError: there is not enough memory, or the process has too many files open.
    """

    def __init__(self, workers: int, each: int, size: int) -> None:
        self._each = each = min(each, 256)  # one byte names a slot
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, workers * each * self._size)
        self._base = np.frombuffer(self._memory, np.uint8).ctypes.data
        # One pipe per worker with a byte for each free slot: the worker reads it, the trainer writes it back.
        self._free = [os.pipe() for _ in range(workers)]
        for reading, writing in self._free:
            os.set_blocking(reading, False)
            os.write(writing, bytes(range(each)))
        self._owner = os.getpid()
        self._held: int | None = None  # the slot that this worker is filling
        self._number = next(_numbers)
        _living[self._number] = self
        weakref.finalize(self, _close, self._free).atexit = False

    def room(self, worker: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return a free slot of a worker as uint8 of this shape (called by the worker); None if none is free or fits.

        The worker gets the same slot until `sent` hands it over, so that a failed batch does not lose it.
        """
        if math.prod(shape) > self._size:
            return None
        if self._held is None:
            try:
                (self._held,) = os.read(self._free[worker][0], 1)
            except BlockingIOError:
                return None
        return self._array(worker, self._held, shape)

    def sent(self, images: np.ndarray, labels: np.ndarray) -> SlotBatch | None:
        """Return the reference to send for a batch, labels int64 [B]; None if the images are not from `room`."""
        index, beyond = divmod(images.ctypes.data - self._base, self._size)
        if beyond or not 0 <= index < self._each * len(self._free):
            return None
        self._held = None
        return SlotBatch(self._number, *divmod(index, self._each), images.shape, labels)

    def take(self, worker: int, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return a slot's contents (called by the trainer); it is recycled once the array is garbage-collected."""
        array = self._array(worker, slot, shape)
        weakref.finalize(array, self._give_back, worker, slot).atexit = False
        return array

    def _array(self, worker: int, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.ndarray(shape, np.uint8, self._memory, (worker * self._each + slot) * self._size)

    def _give_back(self, worker: int, slot: int) -> None:
        if os.getpid() == self._owner:  # not in a fork, which may collect its copy of the trainer's batch
            os.write(self._free[worker][1], bytes([slot]))


class SlotBatch:
    """Reference to a batch in a slot; it unpickles to (uint8 [B, 3, H, W] in channels_last, int64 [B])."""

    def __init__(self, *reference: Any) -> None:
        self._reference = reference

    def __reduce__(self) -> tuple[object, ...]:
        return _load, self._reference


def _load(
    number: int, worker: int, slot: int, shape: tuple[int, ...], labels: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    slots = _living.get(number)
    if slots is None:
        raise RuntimeError("a batch arrived in a process without its loader")
    # from_numpy, because a tensor and all its views hold this very array; a numpy view would not.
    return torch.from_numpy(slots.take(worker, slot, shape)).permute(0, 3, 1, 2), torch.from_numpy(labels)


def _close(pipes: list[tuple[int, int]]) -> None:
    for pipe in pipes:
        for descriptor in pipe:
            os.close(descriptor)
