"""Data sets in other forms (loaders.archives) as they are: each image is a range of bytes, or a file of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from common.addresses import is_s3
from common.errors import DataError, named
from common.folders import S3Folder
from common.sizes import amount, bytes_of
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy
from loaders.archives.forms import OptionNeeded
from loaders.archives.index_file import is_in_ranges, open_indexed
from loaders.archives.order import is_mixed
from loaders.archives.place import Place, read_file
from loaders.dataset import ImageDataset
from loaders.errors import LocalMissing
from loaders.images.transforms import Pipeline
from loaders.storage.kinds import ARCHIVES
from loaders.storage.sharded import ORDER, SHUFFLE_BLOCK, cache_folder, prefetch, window_order
from loaders.storage.stored_files import StoredFile, StoredFiles

LARGEST = 8 << 30  # bytes of a file in S3: the first batch would have to wait for all of a larger one


class ArchiveDataset(ImageDataset):
    """One split of WebDataset tars, a table of paths, ImageNet's archives, ...

    The index stays in memory, in arrays that forked workers share. Images are read where they lie on a disk, in an
    order over all; files in S3 are downloaded on first use, and shuffled as MDS shards are.

    Args:
        path, split, pipeline, seed: as for `data.build_imagenet_dataspec`.
        local, cache_limit: cache folder of files in S3, and how much it may hold.

    Raises:
        LocalMissing: the data set is in S3, and there is no cache folder.
        DataError: the data set is damaged, has no such split, or has to be converted or copied first.
    """

    def __init__(
        self,
        path: str,
        split: str,
        pipeline: Pipeline,
        seed: int,
        local: str | None = None,
        cache_limit: int | str | None = None,
    ) -> None:
        super().__init__(pipeline, seed)
        if is_s3(path) and not local:
            raise LocalMissing(f"{path}: archives in S3 are trained on through a cache folder: set local=/some/folder.")
        try:
            copy = open_indexed(path)
        except OptionNeeded as error:
            raise DataError(f"{error} Such options are tools.convert's: {_conversion(path)}") from error
        if copy is None:
            raise DataError(f"{path}: holds no archives and no table of images; storage={ARCHIVES} reads those.")
        if fault := why_not(path, copy, split):
            raise DataError(fault)
        self.catalog = copy.splits[split]
        self.classes = copy.classes
        self.labels_are_free = copy.classes is None  # they have been compared with the classes
        self.stored: StoredFiles | None = None
        if is_s3(path):
            self.order, self.fetches, self.catalog = ORDER, True, as_stored(self.catalog)
            limit = None if cache_limit is None else bytes_of(cache_limit)
            self.stored = StoredFiles(path, cache_folder(local or "", split), files_in(path, self.catalog), limit)
            self._samples = np.bincount(self.catalog.file)

    def __len__(self) -> int:
        return len(self.catalog)

    @property
    def stored_bytes(self) -> int:
        return int(self.catalog.sizes.sum())

    def name_of(self, index: int) -> str:
        return self.catalog.name_of(index)

    def read(self, index: int) -> tuple[bytes, int]:
        label = int(self.catalog.labels[index])
        if self.stored is None:
            return self.catalog.read(index), label
        place = (int(values[index]) for values in (self.catalog.file, self.catalog.offsets, self.catalog.sizes))
        return self.stored.read(*place), label

    def epoch_order(self, generator: np.random.Generator) -> np.ndarray:
        return window_order(self._samples, generator) if self.stored else super().epoch_order(generator)

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:
        return prefetch(self.stored.cache, self._samples, order) if self.stored else super().prefetch(order)


def as_stored(catalog: Catalog) -> Catalog:
    """Return the images in the order in which their files hold them."""
    return catalog.take(np.lexsort((catalog.offsets, catalog.file)))


def files_in(path: str, catalog: Catalog) -> list[StoredFile]:
    """Return the files of a catalog of a data set in S3."""
    place = Place(path)
    assert isinstance(place.folder, S3Folder)
    there = {place.address(name): (size, tag) for name, size, tag in place.folder.walk()}
    return [StoredFile(file, *there.get(file, (0, ""))) for file in catalog.files]  # reading a missing one says so


def is_direct(catalog: Catalog) -> bool:
    """Whether each image is found at once, so that training can read them in any order."""
    return catalog.reader is read_file or is_in_ranges(catalog)


def why_not(path: str, copy: DataCopy, split: str) -> str | None:
    """Return why training cannot read a split of a data set as it is, and what to do; None if it can."""
    command = _conversion(path)
    if UNSPLIT in copy.splits:
        return f"{path}: has no train and val. To make them: {command} --val 0.1"
    if split not in copy.splits:
        return f"{path}: has no images of {split}, only of {named(sorted(copy.splits))}."
    catalog = copy.splits[split]
    if not is_direct(catalog):
        return f"{path}: {copy.what}: training on them as they are would be slow. Convert them: {command}"
    if is_s3(path) and (fault := _why_not_from_s3(catalog, split)):
        preload = f"python -m tools.preload {shlex.quote(path)} /local/folder"
        return f"{path}: {copy.what}: {fault}. Copy them: {preload}; or convert them: {command}"
    return None


def _why_not_from_s3(catalog: Catalog, split: str) -> str | None:
    """Return why files in S3 cannot be downloaded one by one as a run needs them; None if they can."""
    if not is_in_ranges(catalog):
        return "training reads single images on disks alone"
    if (size := int((catalog.offsets + catalog.sizes).max())) > LARGEST:
        return f"a file of {amount(size)} would have to be downloaded before the first batch"
    in_window = len(catalog) <= SHUFFLE_BLOCK // 10  # so that the shuffled images come from all files
    if split == "train" and not in_window and not is_mixed(as_stored(catalog).labels):
        return "their files hold class after class, so that mixing the classes would need all of them at once"
    return None


def _conversion(path: str) -> str:
    """Return the command that converts a data set."""
    return shlex.join(["python", "-m", "tools.convert", path, f"{path.removesuffix('/')}-mds"])
