"""Data sets in other forms (loaders.archives) as they are: each image is a range of bytes, or a file of its own."""

from __future__ import annotations

import shlex

from common.addresses import is_s3
from common.errors import DataError, named
from loaders.archives.catalog import UNSPLIT, Catalog, DataCopy
from loaders.archives.forms import OptionNeeded
from loaders.archives.index_file import is_in_ranges, open_indexed
from loaders.archives.place import read_file
from loaders.dataset import ImageDataset
from loaders.images.transforms import Pipeline
from loaders.storage.kinds import ARCHIVES


class ArchiveDataset(ImageDataset):
    """One split of WebDataset tars, a table of paths, ImageNet's archives, ...

    The index stays in memory, in arrays that forked workers share; images are read where they lie.

    Raises:
        DataError: the data set is damaged, has no such split, or has to be converted first.
    """

    def __init__(self, path: str, split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
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

    def __len__(self) -> int:
        return len(self.catalog)

    def name_of(self, index: int) -> str:
        return self.catalog.name_of(index)

    def read(self, index: int) -> tuple[bytes, int]:
        return self.catalog.read(index), int(self.catalog.labels[index])


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
    if is_s3(path):
        preload = f"python -m tools.preload {shlex.quote(path)} /local/folder"
        return f"{path}: training reads {copy.what} on disks alone. Copy them: {preload}; or convert them: {command}"
    if not is_direct(copy.splits[split]):
        return f"{path}: {copy.what}: training on them as they are would be slow. Convert them: {command}"
    return None


def _conversion(path: str) -> str:
    """Return the command that converts a data set."""
    return shlex.join(["python", "-m", "tools.convert", path, f"{path.removesuffix('/')}-mds"])
