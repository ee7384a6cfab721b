"""Data sets in shards that are downloaded on first use: the order of an epoch, fetching ahead, and the cache's mark."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from composer.utils import dist

from common.errors import DataError
from common.whole_files import whole_file
from loaders.transport.prefetch import AHEAD, Prefetcher
from loaders.transport.remote import is_remote, unwritable
from loaders.transport.shard_cache import ShardCache

SHUFFLE_BLOCK = 2**18  # samples; the window of the shuffle, as mosaicml-streaming's default block
ORDER = "in a window over shards"


def window_order(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the shards in random order, and their samples shuffled within a rolling window, int64 [N].

    A full permutation would need every shard for the first few batches; this needs a few dozen. The order depends
    only on the seed and the epoch, not on the cache or the number of ranks. `samples` are those of each shard.
    """
    starts = np.cumsum(samples) - samples
    order = np.concatenate([starts[n] + np.arange(samples[n]) for n in generator.permutation(len(samples))])
    keys = np.arange(len(order)) + generator.uniform(0, SHUFFLE_BLOCK, len(order))
    return order[np.argsort(keys, kind="stable")]


def prefetch(
    cache: ShardCache, samples: np.ndarray, order: np.ndarray
) -> AbstractContextManager[Callable[[int], None]]:
    """Fetch ahead, as ImageDataset.prefetch, in one process per node: all its ranks and workers share the cache."""
    ahead = AHEAD
    if cache.limit is not None:  # the other half of the cache is for the shards in use
        ahead = min(AHEAD, cache.limit // cache.largest // 2)
    if cache.remote is None or not ahead or dist.get_local_rank() != 0:
        return contextlib.nullcontext(lambda _position: None)
    shards = np.searchsorted(np.cumsum(samples), order, side="right")
    return Prefetcher(shards, lambda shard: cache.fetch(shard, wait=False), ahead)


def cache_folder(local: str, split: str) -> Path:
    """Return where a split's shards are cached; raises a DataError if that is not on this machine."""
    if is_remote(local):
        raise DataError(f"{local}: shards are cached in a folder of this machine; set local=/some/folder.")
    return Path(local, split)


def check_mark(mark: Path, data: bytes, place: str) -> None:
    """Raise a DataError if a cache folder's mark, which names the files that it is for, is not `data`."""
    if mark.is_file() and mark.read_bytes() != data:
        raise DataError(
            f"{mark.parent}: caches another data set, or an older state of {place}. "
            f"Choose another cache folder, or type: rm -r {mark.parent}"
        )


def keep_mark(mark: Path, data: bytes, place: str) -> None:
    """Write the mark of a cache folder, unless it has one."""
    if mark.is_file():
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(mark) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise unwritable(error, mark.parent, place) from error
