"""MDS shards on a disk or in a store such as S3: PATH/train/index.json, PATH/val/index.json, and shards next to them.

The columns are those of the published converter: x (the encoded image) and y (its class).
"""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common.addresses import is_in_place, is_s3, without_credentials
from common.errors import DataError, named
from common.folders import S3Folder
from common.sizes import bytes_of
from common.store_faults import StoreOutOfReach
from loaders.dataset import ImageDataset, class_list
from loaders.errors import LocalMissing
from loaders.images.decoding import Source, Stored
from loaders.images.transforms import Pipeline
from loaders.storage.columns import WrongValue
from loaders.storage.kinds import is_archives
from loaders.storage.shard_files import ShardFiles
from loaders.storage.shard_index import CLASSES, INDEX, are_shards, files_of, parse_index
from loaders.storage.sharded import ORDER, cache_folder, check_mark, keep_mark, prefetch, window_order
from loaders.transport.preloading.source_files import leads_out
from loaders.transport.remote import is_remote, join, read
from loaders.transport.shard_cache import ShardCache

T = TypeVar("T")


class ShardDataset(ImageDataset):
    """One split of a data set in MDS shards, read by index; a shard is downloaded on first use.

    Args:
        path: the folder that holds train/ and val/, in S3 or another store, or on a disk.
        local: the cache folder; the same as `path` for shards that are read in place, which are never removed.
        split, pipeline, seed, cache_limit: as for `data.build_imagenet_dataspec`.

    Raises:
        LocalMissing: there is no cache folder.
        DataError: the index is missing or malformed, the store cannot be read, the cache holds another data set, or
            the limit is smaller than a shard.
    """

    order = ORDER

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
        folder = cache_folder(local, split)
        self.fetches = not is_in_place(path, local)
        data, index = check_index(path, local, split)
        if self.fetches:
            keep_mark(folder / INDEX, data, join(path, split, INDEX))
        limit = bytes_of(cache_limit) if cache_limit is not None and self.fetches else None
        self.cache = ShardCache(join(path, split) if self.fetches else None, folder, index["shards"], limit)
        self.files = ShardFiles(self.cache)
        self.classes = read_classes(path)
        self.samples = np.array([entry["samples"] for entry in index["shards"]])
        self._starts = (np.cumsum(self.samples) - self.samples).tolist()
        self._length = int(self.samples.sum())

    def __len__(self) -> int:
        return self._length

    @property
    def stored_bytes(self) -> int:
        return sum(entry["raw_data"]["bytes"] for entry in self.cache.shards)

    def name_of(self, index: int) -> str:
        shard, position = self._find(index)
        return f"{self.cache.place_of(shard)}, sample {position}"

    def _find(self, index: int) -> tuple[int, int]:
        """Return the shard of a sample, and the sample's position in it."""
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def read(self, index: int) -> tuple[Source, int]:
        return self._read(self.files.read, index)

    def borrow(self, index: int) -> tuple[Stored, int]:
        return self._read(self.files.borrow, index)

    def _read(self, read: Callable[[int, int], tuple[T, int]], index: int) -> tuple[T, int]:
        """Call `read` for a sample; raises a DataError, which names the sample, if it cannot be read."""
        shard, position = self._find(index)
        try:
            return read(shard, position)
        except DataError:
            raise
        except WrongValue as error:
            raise DataError(f"{self.name_of(index)}: {error}") from error
        except Exception as error:
            raise DataError(f"{self.name_of(index)}: cannot be read ({type(error).__name__}: {error}).") from error

    def epoch_order(self, generator: np.random.Generator) -> np.ndarray:
        return window_order(self.samples, generator)

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:
        return prefetch(self.cache, self.samples, order)


def read_index(remote: str, split: str) -> tuple[bytes, dict[str, Any]]:
    """Return a split's index.json, as bytes and parsed.

    Raises:
        DataError: it is missing, unreachable, malformed or not trustworthy (loaders.storage.shard_index).
    """
    if not is_remote(remote) and (problem := _no_local_index(Path(remote), split)):
        raise DataError(problem)
    place = join(remote, split, INDEX)
    try:
        data = read(place)
    except DataError as error:
        if is_s3(remote) and not isinstance(error, StoreOutOfReach) and is_archives(remote):
            raise DataError(f"{remote}: holds archives instead of MDS shards. Set is_streaming=false.") from error
        raise
    return data, parse_index(data, without_credentials(place))


def _no_local_index(root: Path, split: str) -> str | None:
    """Explain why a local folder has no index; None if it has one."""
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


def require_shards(path: str) -> None:
    """Raise a DataError if a folder in S3 holds no shards, before a cache folder for them is asked for."""
    if is_s3(path) and not are_shards(path):
        raise DataError(
            f"{path}: holds {named(S3Folder(path).names()) or 'nothing'}. Expected shards, train/{INDEX} and "
            f"val/{INDEX}; train/CLASS/*.JPEG and val/CLASS/*.JPEG; or one of the forms in docs/archives.md."
        )


def check_index(remote: str, local: str, split: str) -> tuple[bytes, dict[str, Any]]:
    """Call `read_index`, and check that the cache folder belongs to this data set.

    Raises:
        DataError: as `read_index`, or the cache folder holds another data set's index, or links that lead out of it.
    """
    data, index = read_index(remote, split)
    folder, in_place = Path(local, split), is_in_place(remote, local)
    for shard in index["shards"]:
        for name in (info["basename"] for info in files_of(shard)):
            written = shard["zip_data"] or not in_place
            if written and "/" in name and leads_out(folder, name):
                raise DataError(
                    f"{folder / name}: lies outside of {folder}, by a link; shards are written to their cache folder "
                    "alone. Remove the link, or choose another cache folder."
                )
    check_mark(folder / INDEX, data, join(remote, split, INDEX))
    return data, index


def read_classes(remote: str) -> list[str] | None:
    """Read the class names by label from classes.json next to train/ and val/; None if there is no such file."""
    place = join(remote, CLASSES)
    if not is_remote(remote) and not Path(place).is_file():
        return None
    try:
        data = read(place)
    except DataError as error:
        # The file is optional; some stores deny access to a missing file.
        if is_remote(remote) and (not isinstance(error, StoreOutOfReach) or "access denied" in str(error)):
            return None
        raise
    return class_list(data, without_credentials(place))
