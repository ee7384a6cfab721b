"""Assign images to shards before the work starts, so that shards can be made in any order."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from common.errors import DataError
from loaders.images.decoding import check, open_image, shape_of
from loaders.storage.mds_writer import SAMPLE_OVERHEAD, ShardFormat
from tools.convert.sources import Part, Source
from tools.split.options import Rule

SHUFFLE_SEED = 0
HEADER = 512  # bytes of a shard beyond its samples, rounded up
MEASURED = 16  # images of which the stored size is measured, if they are changed


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored."""

    max_size: int | None  # pixels of the longer side of larger images (FFCV's max_resolution); None keeps all
    quality: int  # of the JPEGs that resized images are stored as, 1 to 100
    decode: bool = True  # to find faults; otherwise only headers are read

    def check(self, data: bytes) -> tuple[int, int]:
        """Return an image's height and width in pixels; raises an Exception for a fault."""
        return check(data) if self.decode else shape_of(data)

    def remake(self, data: bytes) -> bytes:
        """Return an image's encoded bytes as they are to be stored: checked, and the same if it is small enough."""
        height, width = self.check(data)
        longer = max(height, width)
        if self.max_size is None or longer <= self.max_size:
            return data
        resized = [max(1, round(side * self.max_size / longer)) for side in (width, height)]
        out = io.BytesIO()
        open_image(data).resize((resized[0], resized[1]), Image.Resampling.LANCZOS).save(
            out, "JPEG", quality=self.quality
        )
        return out.getvalue()


@dataclass(frozen=True)
class SplitPlan:
    """One split, cut into shards."""

    split: str  # train or val
    source: Source
    order: np.ndarray  # indices in the source, in the order of the shards, int64 [N]
    starts: np.ndarray  # where in `order` each shard starts, and where the last one ends, int64 [shards + 1]
    sizes: np.ndarray  # expected bytes of each shard, int64 [shards]

    def count(self, number: int) -> int:
        """Return the number of images planned for a shard."""
        return int(self.starts[number + 1] - self.starts[number])

    def part(self, number: int) -> Part:
        """Return a shard's images."""
        return self.source.part(self.order[self.starts[number] : self.starts[number + 1]])

    def fingerprint(self) -> str:
        """Return a hash of the source, the order and the cuts."""
        digest = hashlib.sha256(self.source.fingerprint.encode())
        digest.update(self.order.tobytes())
        digest.update(self.starts.tobytes())
        return digest.hexdigest()


def plan_split(split: str, source: Source, images: ImageOptions, shards: ShardFormat) -> SplitPlan:
    """Cut a split into shards of their size limit (on average, if images change), by source and options alone."""
    order = np.arange(len(source.sizes))
    if split == "train" and source.sorted_by_class:  # so that shards mix classes
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(order))
    ratio = 1.0
    if images.max_size is not None or shards.seekable is not None:
        ratio = stored_ratio(source, images, shards)
    sizes = np.ceil(source.sizes[order] * ratio).astype(np.int64) + SAMPLE_OVERHEAD
    starts = cut(sizes, shards.size_limit - HEADER)
    return SplitPlan(split, source, order, starts, np.add.reduceat(sizes, starts[:-1]) + HEADER)


def cut(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Return where runs of at most `limit` bytes start, and where the last one ends; larger samples stand alone."""
    ends = np.cumsum(sizes)
    starts = [0]
    while starts[-1] < len(sizes):
        before = ends[starts[-1] - 1] if starts[-1] else 0
        starts.append(max(starts[-1] + 1, int(np.searchsorted(ends, before + limit, side="right"))))
    return np.array(starts)


def stored_ratio(source: Source, images: ImageOptions, shards: ShardFormat) -> float:
    """Return bytes stored over bytes read, of a few images spread over the source."""
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
            continue  # reported when its shard is made
        before, after = before + len(data), after + len(remade) + len(shards.table(remade))
    return after / before if before else 1.0


def recorded(
    plans: Sequence[SplitPlan], rule: Rule | None, images: ImageOptions, shards: ShardFormat
) -> dict[str, Any]:
    """Return what must be equal to continue an unfinished conversion, as JSON holds it."""
    split = asdict(rule) if rule else {}
    return {**split, **asdict(images), **asdict(shards), "source": {plan.split: plan.fingerprint() for plan in plans}}
