"""Sources of a conversion: one split of an image folder, or of MDS shards."""

import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from common.errors import DataError
from common.store_faults import StoreOutOfReach
from loaders.archives.catalog import UNSPLIT, Catalog
from loaders.archives.forms import ReadOptions
from loaders.archives.holders import rows_of
from loaders.archives.index_file import open_indexed
from loaders.archives.place import file_sizes, read_file
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.columns import FILES, WrongValue
from loaders.storage.imagefolder import SPLITS, ImageFolderDataset, class_names, not_split, structure_faults
from loaders.storage.inspection_jobs import ShardJob
from loaders.storage.mds_writer import read_sample, stored_file
from loaders.storage.shard_index import parse_index
from loaders.storage.streaming import check_index, read_classes, require_shards
from loaders.transport.remote import download, is_remote, join
from tools.split.source import read_source

_one_reader = threading.Lock()  # keeps many threads from reading the same next shard


class Part(Protocol):
    """A shard's images, small enough to send to a worker process."""

    @property
    def indices(self) -> np.ndarray:
        """Indices in the split, int64 [n]."""

    def name_of(self, place: int) -> str:
        """Return where an image is."""

    def read(self, place: int) -> tuple[bytes, int]:
        """Return an image's bytes and label."""


class Source(Protocol):
    """One split of a data set."""

    sizes: np.ndarray  # bytes of each image, int64 [N]
    fingerprint: str  # of all that the converted bytes depend on
    remarks: Sequence[str]
    sorted_by_class: bool  # so that training needs it shuffled

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int64 [N]; those of shards are read."""

    def part(self, indices: np.ndarray) -> Part:
        """Return the images at these indices."""


@dataclass(frozen=True)
class FolderPart:
    """A shard's files of an image folder."""

    indices: np.ndarray  # in the split, int64 [n]
    paths: Sequence[str]
    labels: Sequence[int]

    def name_of(self, place: int) -> str:
        """Return the file's path."""
        return self.paths[place]

    def read(self, place: int) -> tuple[bytes, int]:
        """Return the file's bytes and label."""
        return Path(self.paths[place]).read_bytes(), self.labels[place]


class FolderSource:
    """One split of the image folder `root`, which holds train/ or val/."""

    sorted_by_class = True  # so that training needs it shuffled

    def __init__(self, root: str, split: str) -> None:
        self.files = ImageFolderDataset(root, split, EvaluationPipeline(-1, 1), seed=0)
        self.remarks: Sequence[str] = self.files.remarks
        self.labels = self.files.labels
        self.sizes = file_sizes(self._paths(np.arange(len(self.files)))).clip(min=0)  # reading a missing one reports it
        digest = hashlib.sha256(json.dumps(self.files.classes).encode())
        for array in (self.files.names, self.files.labels, self.sizes):
            digest.update(array.tobytes())
        self.fingerprint = digest.hexdigest()

    def part(self, indices: np.ndarray) -> FolderPart:
        """Return the files at these indices."""
        return FolderPart(indices, self._paths(indices), self.files.labels[indices].tolist())

    def _paths(self, indices: np.ndarray) -> list[str]:
        """Return `files.path_of` of many images, without millions of Path objects."""
        folders = [f"{self.files.folder}/{name}/" for name in self.files.classes]
        labels, names = self.files.labels[indices].tolist(), self.files.names[indices].tolist()
        return [folders[label] + os.fsdecode(name) for label, name in zip(labels, names, strict=True)]


@dataclass(frozen=True)
class ShardPart:
    """Samples of MDS shards, read one shard after the other."""

    indices: np.ndarray  # in the split, int64 [n]
    remote: str  # folder of the data set
    local: str  # cache folder for a store's shards; `remote` itself if that is a local folder
    split: str

    def name_of(self, place: int) -> str:
        """Return the shard's address, and the sample's number in it."""
        number, within = self._find(place)
        entry = _index(self.local, self.split)[0][number]
        return f"{join(self.remote, self.split, stored_file(entry)['basename'])}, sample {within}"

    def read(self, place: int) -> tuple[bytes, int]:
        """Return the sample's image bytes and label."""
        number, within = self._find(place)
        with _one_reader:
            entry, raw = _shard(self.remote, self.local, self.split, number)
        try:
            _, image, label = read_sample(entry, raw, within)
        except WrongValue as error:
            raise DataError(f"{self.name_of(place)}: {error}") from error
        return cast(bytes, image), label

    def _find(self, place: int) -> tuple[int, int]:
        """Return the number of the shard, and of the sample in it."""
        starts = _index(self.local, self.split)[1]
        number = int(np.searchsorted(starts, self.indices[place], side="right")) - 1
        return number, int(self.indices[place] - starts[number])


class ShardSource:
    """One split of a data set in MDS shards; arguments as for ShardPart."""

    remarks: Sequence[str] = ()
    sorted_by_class = False  # assumed, and the order is kept, so that each shard is fetched once

    def __init__(self, remote: str, local: str, split: str) -> None:
        self.place = (remote, local, split)
        shards = check_index(remote, local, split)[1]["shards"]
        cached = Path(local, split, "index.json")
        if not cached.is_file():
            download(join(remote, split, "index.json"), cached)
        for entry in shards:
            columns = dict(zip(entry["column_names"], entry["column_encodings"], strict=True))
            if columns["x"] not in FILES:
                raise DataError(
                    f"{join(remote, split, 'index.json')}: column x is encoded as {columns['x']}. To be converted, a "
                    f"data set needs x encoded as {' or '.join(FILES)}."
                )
        samples = np.array([entry["samples"] for entry in shards])
        sizes = np.array([entry["raw_data"]["bytes"] for entry in shards])
        self.sizes = np.repeat(sizes // np.maximum(1, samples), samples)  # of each image: the mean of its shard
        self.fingerprint = hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()

    def part(self, indices: np.ndarray) -> ShardPart:
        """Return the samples at these indices."""
        return ShardPart(indices, *self.place)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels of all images, int64 [N], from the shards."""
        whole = self.part(np.arange(len(self.sizes)))
        return np.array([whole.read(place)[1] for place in range(len(self.sizes))], np.int64)


@dataclass(frozen=True)
class CatalogPart:
    """A shard's images of a catalog."""

    indices: np.ndarray  # in the split, int64 [n]
    catalog: Catalog  # of these alone

    def name_of(self, place: int) -> str:
        """Return where the image is."""
        return self.catalog.name_of(place)

    def read(self, place: int) -> tuple[bytes, int]:
        """Return the image's bytes and label."""
        return self._read(place), int(self.catalog.labels[place])

    @functools.cached_property
    def _read(self) -> Callable[[int], bytes]:
        return self.catalog.reads_in_order()


class CatalogSource:
    """One split of a data set in another form (loaders.archives)."""

    def __init__(self, catalog: Catalog, classes: list[str] | None, remarks: Sequence[str]) -> None:
        self.catalog, self.remarks = catalog, remarks
        self.sizes, self.labels = catalog.sizes, catalog.labels
        self.sorted_by_class = not catalog.mixed
        self.fingerprint = catalog.fingerprint(classes)

    def part(self, indices: np.ndarray) -> CatalogPart:
        """Return the images at these indices."""
        return CatalogPart(indices, self.catalog.take(indices))


@functools.lru_cache(maxsize=4)
def _index(local: str, split: str) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return the entries of a split's index, and the index of each one's first sample."""
    path = Path(local, split, "index.json")
    entries = parse_index(path.read_bytes(), str(path))["shards"]
    return entries, np.cumsum([0] + [entry["samples"] for entry in entries[:-1]])


@functools.lru_cache(maxsize=2)
def _shard(remote: str, local: str, split: str, number: int) -> tuple[dict[str, Any], bytes]:
    """Return a shard's entry and its verified, uncompressed bytes; a damaged cached copy is fetched again."""
    entry = _index(local, split)[0][number]
    return entry, ShardJob(0, remote, local, split, entry).unpacked()


class Opened(NamedTuple):
    """A data set to be converted."""

    sources: dict[str, Source]  # train, val or both, or UNSPLIT alone
    classes: list[str] | None  # by label; None if they are not recorded
    headline: str = ""  # what it is, if it is one of loaders.archives.forms


def open_sources(path: str, local: str | None, options: ReadOptions | None = None) -> Opened:
    """Open a data set.

    `path` holds train/, val/ or both, or a data set in another form, which `options` are for; `local` is the cache
    folder for shards in a store.
    """
    if copy := open_indexed(path, options or ReadOptions(), in_stores_alone=True):
        remarks = iter([copy.remarks])  # once, not for each split
        found: dict[str, Source] = {
            name: CatalogSource(catalog, copy.classes, next(remarks, [])) for name, catalog in copy.splits.items()
        }
        return Opened(found, copy.classes, copy.headline)
    if is_remote(path):
        if not local:
            require_shards(path)
            raise DataError(f"{path}: shards from a store are kept while they are read: add --local /a/cache/folder")
        return _open_remote(path, local)
    splits = [split for split in SPLITS if os.path.lexists(os.path.join(path, split))]  # broken links too
    if any(Path(path, split, "index.json").is_file() for split in splits):
        return Opened({split: ShardSource(path, path, split) for split in splits}, read_classes(path))
    if not splits and not_split(Path(path)):
        return open_classes(path)
    if problems := structure_faults(Path(path), needed=tuple(splits) or SPLITS):
        raise DataError("\n".join(problems))
    return Opened({split: FolderSource(path, split) for split in splits}, class_names(Path(path, splits[0])))


def open_classes(path: str) -> Opened:
    """Return the images of a folder of classes that has no train/ and val/, in the order of an image folder's."""
    found = read_source(Path(path), "")
    rows = rows_of(path, list(zip(found.names, found.labels, strict=True)))
    source = CatalogSource(rows.catalog([path.rstrip("/")], read_file), found.classes, found.remarks)
    return Opened({UNSPLIT: source}, found.classes)


def _open_remote(remote: str, local: str) -> Opened:
    """Return the splits of a store that have an index; DataError if none has one."""
    found: dict[str, Source] = {}
    absent: list[DataError] = []
    for split in SPLITS:
        try:
            found[split] = ShardSource(remote, local, split)
        except StoreOutOfReach:
            raise
        except DataError as error:
            if "index.json: is missing" not in str(error):
                raise
            absent.append(error)
    if not found:
        raise absent[0]
    return Opened(found, read_classes(remote))
