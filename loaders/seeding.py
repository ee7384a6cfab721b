"""One seed per (run, epoch, sample, copy of the sample).

Augmentation therefore does not depend on the number of workers, the world size, or interruptions.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import get_worker_info


def sample_seed(seed: int, epoch: int, index: int, copy: int = 0) -> int:
    """Return a well-mixed 63-bit seed for one sample of one epoch; `copy` counts its repetitions in the epoch."""
    words = f"{seed} {epoch} {index}" + (f" {copy}" if copy else "")
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def seeded(seed: int, epoch: int, index: int, copy: int = 0) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators for one sample of the data set.

    In the main process the generators are restored afterwards, so that MixUp or dropout draw as if the data had been
    loaded elsewhere. A worker draws nothing else, so there the restoring (about 10 microseconds) is skipped.
    """
    in_worker = get_worker_info() is not None
    before = None if in_worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    value = sample_seed(seed, epoch, index, copy)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    # Not torch.manual_seed, which also queues a seed for CUDA at every call.
    torch.default_generator.manual_seed(value)
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])
