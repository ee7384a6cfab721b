"""Which image goes into which shard: settled before the work starts, so that shards can be made in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common.errors import DataError
from loaders.storage.mds_writer import SAMPLE_OVERHEAD, ShardFormat
from tools.convert.shrinking import ImageOptions
from tools.convert.sources import Part, Source

SHUFFLE_SEED = 0
HEADER = 512  # bytes of a shard that are no sample's, rounded up
MEASURED = 16  # images made smaller to learn by how much


@dataclass(frozen=True)
class SplitPlan:
    """One split, cut into shards.

    Args:
        split: `train` or `val`.
        source: where its images are.
        order: their places in the source, in the order of the shards, int64 [N].
        starts: where in `order` each shard begins, and where the last one ends, int64 [shards + 1].
        sizes: expected bytes of each shard, int64 [shards].
    """

    split: str
    source: Source
    order: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @property
    def shards(self) -> int:
        """How many shards."""
        return len(self.sizes)

    def count(self, number: int) -> int:
        """How many images are meant for a shard."""
        return int(self.starts[number + 1] - self.starts[number])

    def part(self, number: int) -> Part:
        """A shard's images."""
        return self.source.part(self.order[self.starts[number] : self.starts[number + 1]])

    def fingerprint(self) -> str:
        """Of the source, the order and the cuts."""
        digest = hashlib.sha256(self.source.fingerprint.encode())
        digest.update(self.order.tobytes())
        digest.update(self.starts.tobytes())
        return digest.hexdigest()


def plan_split(split: str, source: Source, images: ImageOptions, size_limit: int) -> SplitPlan:
    """Cut a split into shards; a function of the source and the options alone.

    Args:
        split: `train` or `val`; train is shuffled if the source lies sorted by class, so that shards mix classes.
        source: its images.
        images: how they are stored.
        size_limit: bytes per shard; exact where nothing is resized, met on average where something is.
    """
    order = np.arange(len(source.sizes))
    if split == "train" and source.sorted_by_class:
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(order))
    ratio = 1.0 if images.max_size is None else shrinkage(source, images)
    sizes = np.ceil(source.sizes[order] * ratio).astype(np.int64) + SAMPLE_OVERHEAD
    starts = cut(sizes, size_limit - HEADER)
    return SplitPlan(split, source, order, starts, np.add.reduceat(sizes, starts[:-1]) + HEADER)


def cut(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Where runs of at most `limit` bytes begin, and where the last one ends; what is larger stands alone."""
    ends = np.cumsum(sizes)
    starts = [0]
    while starts[-1] < len(sizes):
        before = ends[starts[-1] - 1] if starts[-1] else 0
        starts.append(max(starts[-1] + 1, int(np.searchsorted(ends, before + limit, side="right"))))
    return np.array(starts)


def shrinkage(source: Source, images: ImageOptions) -> float:
    """Bytes after resizing over bytes before, of a few images evenly spread over the source."""
    chosen = np.unique(np.linspace(0, len(source.sizes) - 1, MEASURED).astype(np.int64))
    part = source.part(chosen)
    before = after = 0
    for place in range(len(chosen)):
        try:
            data = part.read(place)[0]
            remade = images.remake(data)
        except DataError:
            raise
        except Exception:
            continue  # named when its shard is made
        before, after = before + len(data), after + len(remade)
    return after / before if before else 1.0


def recorded(plans: Sequence[SplitPlan], images: ImageOptions, shards: ShardFormat) -> dict[str, Any]:
    """What must be the same for an unfinished conversion to be gone on with, as JSON holds it."""
    return {**asdict(images), **asdict(shards), "source": {plan.split: plan.fingerprint() for plan in plans}}
