"""MDS shards, on a disk or in a store such as S3: PATH/train/index.json, PATH/val/index.json, shards beside them.

Columns as the published converter writes them: x (the image as it was encoded) and y (its class).
"""

import contextlib
import tempfile
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from composer.utils import dist

from common.addresses import is_in_place
from common.errors import DataError
from common.sizes import bytes_of
from loaders.dataset import ImageDataset, class_list
from loaders.errors import LocalMissing
from loaders.images.decoding import Source
from loaders.images.transforms import Pipeline
from loaders.storage.columns import WrongValue
from loaders.storage.shard_files import ShardFiles
from loaders.storage.shard_index import CLASSES, INDEX, files_of, parse_index
from loaders.transport.prefetch import AHEAD, Prefetcher
from loaders.transport.preloading.source_files import leads_out
from loaders.transport.remote import StoreOutOfReach, download, is_remote, join, part_of, unwritable
from loaders.transport.shard_cache import ShardCache

SHUFFLE_BLOCK = 2**18  # samples: how far a shuffled sample may move from its shard (mosaicml-streaming's usual block)


class ShardDataset(ImageDataset):
    """One split of a data set in MDS shards, read by index; a shard is downloaded when it is first needed.

    Args:
        path: the folder that holds train/ and val/: s3://bucket/folder, another store's, or a folder of a disk.
        local: the cache folder; the same folder as `path` where the shards need no copy.
        split: `train` or `val`.
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed.
        cache_limit: bytes of shards that the split's cache folder may hold, as a number or with a unit (200gb); None:
            all of them. Of shards that are read in place none is ever removed.

    Raises:
        LocalMissing: no cache folder.
        DataError: no index, a malformed one, a store that cannot be reached or read, a cache of another data set, a
            limit below the size of a shard.
    """

    order = "in a window over shards"

    def __init__(
        self,
        path: str,
        local: str | None,
        split: str,
        pipeline: Pipeline,
        seed: int,
        cache_limit: int | str | None = None,
    ) -> None:
        super().__init__(pipeline, seed)
        if not local:
            raise LocalMissing(
                f"{path}: streaming needs a cache folder that shards are downloaded to: set local=/some/folder, or "
                "give the path itself where the shards are on this machine already."
            )
        if is_remote(local):
            raise DataError(f"{local}: shards are cached in a folder of this machine; say local=/some/folder.")
        self.fetches = not is_in_place(path, local)
        data, index = _checked_index(path, local, split)
        folder = Path(local, split)
        if self.fetches:
            _keep(folder / INDEX, data, join(path, split, INDEX))
        limit = bytes_of(cache_limit) if cache_limit is not None and self.fetches else None
        self.cache = ShardCache(join(path, split) if self.fetches else None, folder, index["shards"], limit)
        self.files = ShardFiles(self.cache)
        self.classes = read_classes(path)
        self.samples = np.array([entry["samples"] for entry in index["shards"]])
        self.starts = np.cumsum(self.samples) - self.samples
        self._starts, self._length = self.starts.tolist(), int(self.samples.sum())

    def __len__(self) -> int:
        return self._length

    def name_of(self, index: int) -> str:
        shard, place = self._find(index)
        return f"{self.cache.place_of(shard)}, sample {place}"

    def _find(self, index: int) -> tuple[int, int]:
        """The shard of a sample, and its place in it."""
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def read(self, index: int) -> tuple[Source, int]:
        shard, place = self._find(index)
        try:
            return self.files.read(shard, place)
        except DataError:
            raise
        except WrongValue as error:
            raise DataError(f"{self.name_of(index)}: {error}") from error
        except Exception as error:
            raise DataError(f"{self.name_of(index)}: cannot be read ({type(error).__name__}: {error}).") from error

    def epoch_order(self, generator: np.random.Generator) -> np.ndarray:
        """Shards in random order, and their samples shuffled inside a window that rolls along.

        A full permutation would need every shard for the first few batches; here an empty cache needs some tens. The
        order depends on the seed and the epoch only, never on the cache or the number of ranks.
        """
        shards = generator.permutation(len(self.samples))
        order = np.concatenate([self.starts[shard] + np.arange(self.samples[shard]) for shard in shards])
        keys = np.arange(len(order)) + generator.uniform(0, SHUFFLE_BLOCK, len(order))
        return order[np.argsort(keys, kind="stable")]

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:
        """One process per node fetches ahead: its workers and the other ranks on it share the cache."""
        ahead = AHEAD
        if self.cache.limit is not None:  # the other half is for the shards in use
            ahead = min(AHEAD, self.cache.limit // self.cache.largest // 2)
        if not self.fetches or not ahead or dist.get_local_rank() != 0:
            return contextlib.nullcontext(lambda _position: None)
        shards = np.searchsorted(self.starts, order, side="right") - 1
        return Prefetcher(shards, lambda shard: self.cache.fetch(shard, wait=False), ahead)


def read_index(remote: str, split: str) -> tuple[bytes, dict[str, Any]]:
    """Fetch and parse a split's index.json.

    Raises:
        DataError: it is missing, out of reach or malformed, or cannot be trusted (loaders.storage.shard_index).
    """
    place = join(remote, split, INDEX)
    if is_remote(remote):
        with tempfile.TemporaryDirectory() as folder:  # the cache folder may be whole, and not writable
            download(place, Path(folder, INDEX))
            data = Path(folder, INDEX).read_bytes()
    else:
        problem = _no_local_index(Path(remote), split)
        if problem:
            raise DataError(problem)
        data = Path(place).read_bytes()
    return data, parse_index(data, place)


def _no_local_index(root: Path, split: str) -> str | None:
    """Why there is no index in a folder of this machine's, or None when there is one."""
    if not root.is_dir():
        return f"{root}: no such folder. It should hold train/index.json and val/index.json with their shards."
    folder = root / split
    if not folder.is_dir():
        return f"{root}: has no {split}/. Expected {folder}/index.json and its shards."
    if not (folder / INDEX).is_file():
        images = any(path.is_dir() for path in list(folder.iterdir()))
        hint = "It holds folders; for folders of images set is_streaming=false." if images else "Copy it again."
        return f"{folder / INDEX}: is missing. {hint}"
    return None


def check_index(remote: str, local: str, split: str) -> dict[str, Any]:
    """The split's index, after making sure that the cache folder is this data set's.

    Raises:
        DataError: as `read_index`, or the cache folder holds another data set's index, or links that lead out of it.
    """
    return _checked_index(remote, local, split)[1]


def _checked_index(remote: str, local: str, split: str) -> tuple[bytes, dict[str, Any]]:
    """As `check_index`, with the file's content."""
    data, index = read_index(remote, split)
    for shard in index["shards"]:
        if shard["zip_data"] or not is_in_place(remote, local):  # else nothing is written
            _refuse_links(Path(local, split), [info["basename"] for info in files_of(shard)])
    cached = Path(local, split, INDEX)
    if cached.is_file() and cached.read_bytes() != data:
        raise DataError(
            f"{cached.parent}: caches another data set, or an older state of {join(remote, split)}. "
            f"Choose another cache folder, or type: rm -r {cached.parent}"
        )
    return data, index


def _keep(path: Path, data: bytes, place: str) -> None:
    """Have the index in the cache folder, which thereby is this data set's.

    Raises:
        DataError: it cannot be written.
    """
    if path.is_file():
        return
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise unwritable(error, path.parent, place) from error


def _refuse_links(folder: Path, names: list[str]) -> None:
    """Write no shard through a folder that is a link to another place."""
    for name in names:
        if "/" in name and leads_out(folder, name):
            raise DataError(
                f"{folder / name}: lies outside of {folder}, by a link; shards are written to their cache folder "
                "alone. Remove the link, or choose another cache folder."
            )


def read_classes(remote: str) -> list[str] | None:
    """The class names from classes.json (a list, by label) beside train/ and val/; None where there is no such file."""
    place = join(remote, CLASSES)
    if not is_remote(remote):
        return class_list(Path(place), place) if Path(place).is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            download(place, Path(folder, CLASSES))
        except StoreOutOfReach as error:
            if "access denied" in str(error):
                return None  # as some stores answer for what is not there
            raise
        except DataError:
            return None  # it is optional
        return class_list(Path(folder, CLASSES), place)
