"""Shared memory slots for batches from workers: recycled, but never while a tensor still uses them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data import build_imagenet_dataspec
from loaders.images.transforms import collate
from loaders.slots import Slots
from loaders.workers import WorkerLoader

pytestmark = pytest.mark.slow


def images_of(root: Path, workers: int, **options: object) -> DataLoader:
    return build_imagenet_dataspec(root, False, 4, crop_size=40, num_workers=workers, seed=3, **options).dataloader


def epoch_of(loader: DataLoader, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return every batch of an epoch, keeping all of them."""
    loader.sampler.set_epoch(number)
    return list(loader)


@pytest.mark.parametrize("steps", [[], [torch.clone]])
def test_kept_batches_are_not_overwritten(steps: list, odd: Path) -> None:
    """More batches than slots, and views of others; slots of released batches are recycled."""
    loader, alone = (images_of(odd, workers, image_transforms=steps) for workers in (2, 0))
    kept = []
    for number in range(4):
        expected, batches = epoch_of(alone, number), epoch_of(loader, number)
        assert len(batches) > 2
        kept.append((batches[1][0][2:3, 1], expected[1][0][2:3, 1].clone()))
        for found, wanted in zip(batches, expected, strict=True):
            assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
    assert all(torch.equal(*pair) for pair in kept)


def test_a_slot_is_recycled_when_its_batch_is_deleted(odd: Path) -> None:
    loader = images_of(odd, 1)
    addresses = {images.data_ptr() for number in range(3) for images, _ in _one_by_one(loader, number)}
    assert 1 <= len(addresses) <= loader.prefetch_factor + 2, "two in work, one in transit, one in use"


def _one_by_one(loader: DataLoader, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    loader.sampler.set_epoch(number)
    yield from loader


def test_an_abandoned_epoch_loses_no_slot(odd: Path) -> None:
    loader, alone = images_of(odd, 2), images_of(odd, 0)
    for number in range(8):
        loader.sampler.set_epoch(number)
        next(iter(loader))
    for found, wanted in zip(epoch_of(loader, 9), epoch_of(alone, 9), strict=True):
        assert torch.equal(found[0], wanted[0])
    addresses = {images.data_ptr() for images, _ in _one_by_one(loader, 10)}
    assert len(addresses) <= 2 * (loader.prefetch_factor + 1)


def test_two_loaders_of_one_data_set(odd: Path) -> None:
    """As when BatchNorm statistics are computed in mid-epoch."""
    first, alone = images_of(odd, 1), images_of(odd, 0)
    expected = epoch_of(alone, 2)
    first.sampler.set_epoch(2)
    batches = iter(first)
    found = [next(batches)]
    second = WorkerLoader(first.dataset, 4, num_workers=1, collate_fn=collate)
    second.slot_bytes = first.slot_bytes
    assert len(list(second)) > 2
    del second
    gc.collect()
    for batch, wanted in zip([*found, *batches], expected, strict=True):
        assert torch.equal(batch[0], wanted[0])


def test_slots_alone() -> None:
    slots = Slots(workers=2, each=2, size=100)
    room = slots.room(1, (1, 2, 5, 1))
    assert slots.room(1, (9999,)) is None and np.shares_memory(room, slots.room(1, (1, 2, 5, 1))), (
        "nothing was sent yet"
    )
    assert slots.sent(np.zeros((2, 5), np.uint8), np.zeros(2)) is None, "memory of its own"
    room[:] = 7
    images, labels = pickle.loads(pickle.dumps(slots.sent(room, np.array([4]))))
    assert images.shape == (1, 1, 2, 5) and int(images.min()) == 7 and labels.tolist() == [4]
    other = pickle.loads(pickle.dumps(slots.sent(slots.room(1, (1, 2, 5, 1)), labels.numpy())))
    assert slots.room(1, (2, 5)) is None, "two places"
    part = images[:, :, 1]
    del images
    gc.collect()
    assert slots.room(1, (2, 5)) is None and int(part.sum()) == 35
    del part
    gc.collect()
    sent = pickle.dumps(slots.sent(slots.room(1, (1, 2, 5, 1)), np.array([4])))
    del slots, other
    gc.collect()
    with pytest.raises(RuntimeError, match="in a process without its loader"):
        pickle.loads(sent)


def test_a_fork_does_not_release_a_slot() -> None:
    """Even when it collects its copy of the trainer's batch."""
    slots = Slots(workers=1, each=1, size=100)
    batch = pickle.loads(pickle.dumps(slots.sent(slots.room(0, (1, 2, 5, 1)), np.array([4]))))
    child = os.fork()
    if child == 0:
        del batch
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert slots.room(0, (2, 5)) is None
    del batch
    gc.collect()
    assert slots.room(0, (2, 5)) is not None


def test_loaders_without_persistent_workers_side_by_side(odd: Path) -> None:
    loader = images_of(odd, 1, persistent_workers=False)
    pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) > 2 and all(torch.equal(one[0], other[0]) for one, other in pairs)


def test_descriptors_are_closed_with_the_loader(odd: Path) -> None:
    """Compares the inodes of the loader's pipes, because other threads open and close descriptors meanwhile."""
    loader = images_of(odd, 2)
    epoch_of(loader, 0)
    iterator = loader._iterator
    queues = [*iterator._index_queues, iterator._worker_result_queue]
    ends = [end.fileno() for queue in queues for end in (queue._reader, queue._writer)]
    own = {os.fstat(descriptor).st_ino for descriptor in [*itertools.chain(*iterator.slots._free), *ends]}
    assert len(own) == 5 and own <= _open_pipes(), "one pipe for each worker's slots, one for each queue"
    feeders = [queue._thread for queue in iterator._index_queues]
    del loader, iterator, queues
    gc.collect()
    for thread in feeders:
        thread.join(60)  # closes its queue's ends when it exits
    assert not own & _open_pipes()


def _open_pipes() -> set[int]:
    """Return the inodes of this process's open pipes."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed after it was listed
            status = os.fstat(int(descriptor))
            if stat.S_ISFIFO(status.st_mode):
                found.add(status.st_ino)
    return found
