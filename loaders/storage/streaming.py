"""MDS shards, on a disk or in a store such as S3: PATH/train/index.json, PATH/val/index.json, shards beside them.

Columns as the published converter writes them: x (the picture as it was encoded) and y (its class).
"""

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np
from composer.utils import dist
from streaming.base.format.mds.reader import MDSReader

from common.errors import DataError
from loaders.dataset import PictureDataset, class_list
from loaders.errors import LocalMissing
from loaders.images.decoding import Source
from loaders.images.transforms import Pipeline
from loaders.storage.columns import WrongValue
from loaders.storage.leftovers import claimed, in_use
from loaders.storage.shard_files import ShardFiles
from loaders.storage.shard_index import files_of, parse_index
from loaders.storage.shards import ShardStore, VerifiedStream
from loaders.transport.prefetch import Prefetcher
from loaders.transport.preloading.source_files import leads_out
from loaders.transport.remote import StoreOutOfReach, download, is_remote, join

SHUFFLE_BLOCK = 2**18  # samples: how far a shuffled sample may move from its shard (mosaicml-streaming's usual block)


class StreamingDataset(PictureDataset):
    """One split of a data set in MDS shards, read by index; a shard is downloaded when it is first needed.

    Args:
        remote: the folder that holds train/ and val/: s3://bucket/folder, another store's, or a folder of a disk.
        local: the cache folder; the same folder as `remote` where the shards need no copy.
        split: `train` or `val`.
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed.
        batch_size: samples per device.

    Raises:
        LocalMissing: no cache folder.
        DataError: no index, a malformed one, a store that cannot be reached or read, a cache of another data set.
    """

    order = "in a window over shards"

    def __init__(
        self, remote: str, local: str | None, split: str, pipeline: Pipeline, seed: int, batch_size: int
    ) -> None:
        super().__init__(pipeline, seed)
        if not local:
            raise LocalMissing(
                f"{remote}: streaming needs a cache folder that shards are downloaded to: set local=/some/folder, or "
                "give the path itself where the shards are on this machine already."
            )
        if is_remote(local):
            raise DataError(f"{local}: shards are cached in a folder of this machine; say local=/some/folder.")
        in_place = are_same(remote, local)
        self.root, self.split = remote, split
        check_index(remote, local, split)
        stream = VerifiedStream(remote=None if in_place else remote, local=local, split=split)
        self.store = open_store(stream, batch_size)
        self.files = ShardFiles(cast(list[MDSReader], self.store.shards))
        self.classes = read_classes(remote, local)
        self.fetches = not in_place

    def __len__(self) -> int:
        return int(self.store.num_samples)

    def name_of(self, index: int) -> str:
        shard, place = self.store.spanner[index]
        return f"{self.store.place_of(shard)}, sample {place}"

    def read(self, index: int) -> tuple[Source, int]:
        shard, place = self.store.spanner[index]
        try:
            try:
                return self.files.read(shard, place)
            except FileNotFoundError:
                self.store.prepare_shard(shard)
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
        samples, starts = self.store.samples_per_shard, self.store.sample_offset_per_shard
        shards = generator.permutation(len(samples))
        order = np.concatenate([np.arange(starts[shard], starts[shard] + samples[shard]) for shard in shards])
        keys = np.arange(len(order)) + generator.uniform(0, SHUFFLE_BLOCK, len(order))
        return order[np.argsort(keys, kind="stable")]

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:
        """One process per node fetches ahead: its workers and the other ranks on it share the cache."""
        if self.store.stream.remote is None or dist.get_local_rank() != 0:
            return contextlib.nullcontext(lambda _position: None)
        shards = np.searchsorted(self.store.sample_offset_per_shard, order, side="right") - 1
        return Prefetcher(shards, lambda shard: self.store.prepare_shard(shard, blocking=False))


def open_store(stream: VerifiedStream, batch_size: int) -> ShardStore:
    """The shards' reader, with mosaicml-streaming's complaints turned into sentences.

    Raises:
        DataError: the index describes no readable shards, or another run on this machine uses the cache folder.
    """
    folder = join(stream.local, stream.split)
    try:
        shared = stream.remote is None
        with claimed(folder, shared) if dist.get_local_rank() == 0 else contextlib.nullcontext():
            dist.barrier()  # a rank that looks for a free number opens what is being removed
            return ShardStore(stream, batch_size)
    except DataError:
        raise
    except Exception as error:
        if "Reused local directory" in str(error):
            raise in_use(folder) from error
        place = join(stream.remote or stream.local, stream.split, "index.json")
        raise DataError(f"{place}: cannot be used ({type(error).__name__}: {error}).") from error


def read_index(remote: str, local: str, split: str) -> tuple[bytes, dict[str, Any]]:
    """Fetch and parse a split's index.json.

    Raises:
        DataError: it is missing, out of reach or malformed, or cannot be trusted (loaders.storage.shard_index).
    """
    place = join(remote, split, "index.json")
    if is_remote(remote):
        copy = Path(local, split, f".index.{os.getpid()}.json")
        download(place, copy)
        data = copy.read_bytes()
        copy.unlink()
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
    if not (folder / "index.json").is_file():
        pictures = any(path.is_dir() for path in list(folder.iterdir()))
        hint = "It holds folders; for folders of pictures set is_streaming=false." if pictures else "Copy it again."
        return f"{folder / 'index.json'}: is missing. {hint}"
    return None


def check_index(remote: str, local: str, split: str) -> dict[str, Any]:
    """The split's index, after making sure that the cache folder is this data set's.

    Raises:
        DataError: as `read_index`, or the cache folder holds another data set's index, or links that lead out of it.
    """
    data, index = read_index(remote, local, split)
    for shard in index["shards"]:
        if shard["zip_data"] or not are_same(remote, local):  # else nothing is written
            _refuse_links(Path(local, split), [info["basename"] for info in files_of(shard)])
    cached = Path(local, split, "index.json")
    if cached.is_file() and cached.read_bytes() != data:
        raise DataError(
            f"{cached.parent}: caches another data set, or an older state of {join(remote, split)}. "
            f"Choose another cache folder, or type: rm -r {cached.parent}"
        )
    return index


def are_same(remote: str, local: str) -> bool:
    """Whether shards are read where they are, without a copy."""
    return not is_remote(remote) and os.path.realpath(remote) == os.path.realpath(local)


def _refuse_links(folder: Path, names: list[str]) -> None:
    """Write no shard through a folder that is a link to another place."""
    for name in names:
        if "/" in name and leads_out(folder, name):
            raise DataError(
                f"{folder / name}: lies outside of {folder}, by a link; shards are written to their cache folder "
                "alone. Remove the link, or choose another cache folder."
            )


def read_classes(remote: str, local: str) -> list[str] | None:
    """The class names from classes.json (a list, by label) beside train/ and val/; None where there is no such file."""
    place = join(remote, "classes.json")
    path = Path(place)
    if is_remote(remote):
        path = Path(local, f".classes.{os.getpid()}.json")
        try:
            download(place, path)
        except StoreOutOfReach as error:
            if "access denied" in str(error):
                return None  # as some stores answer for what is not there
            raise
        except DataError:
            return None  # it is optional
    if not path.is_file():
        return None
    names = class_list(path, place)
    if is_remote(remote):
        path.unlink()
    return names
