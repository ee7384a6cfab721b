"""The table of storage kinds and their capabilities. No torch.

A new kind needs its file, its row here, and its row of the table in docs/data.md.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.outside import is_outside
from common.suggest import did_you_mean, listing

if TYPE_CHECKING:
    from loaders.dataset import ImageDataset
    from loaders.images.transforms import Pipeline


@dataclass(frozen=True)
class Kind:
    """One kind of storage.

    Args:
        reads: files that it reads, for the docs.
        choose_when: reason to choose it, for the docs.
        dataset: its ImageDataset, as package.module:Class, imported when a data set is opened; None: its source's.
        arguments: names of the arguments that the class takes: those of `open_dataset`, or `source`, an open data set
            of the default kind.
        is_streaming: whether it reads MDS shards; None: its source decides.
        reads_path: False for images that are not read; the section's other keys are then ignored.
        remote: whether it reads a store's address without shards.
        mark: the file that identifies a folder of this kind, with {split} for train or val.
        written_as: its name for `tools.convert --to`.
        image_transforms: whether algorithms can transform single images in its loader.
        own_decoder: whether it decodes without loaders.images.decoders.
        loader: its WorkerLoader, as package.module:Class; None: worker processes that run the pipeline.
        requires: a function, as package.module:name, that raises a DataError if a package is missing.
    """

    reads: str
    choose_when: str
    dataset: str | None
    arguments: tuple[str, ...] = ("path", "split", "pipeline", "seed")
    is_streaming: bool | None = False
    reads_path: bool = True
    remote: bool = False
    mark: str | None = None
    written_as: str | None = None
    image_transforms: bool = True
    own_decoder: bool = False
    loader: str | None = None
    requires: str | None = None

    @property
    def uses_decoder(self) -> bool:
        """Whether the section's `decoder` applies."""
        return self.reads_path and not self.own_decoder


OUTSIDE = Kind("what its class reads", "no other kind reads them", None, remote=True)
"""Row of a class from outside this project, which `data.py` opens."""
KINDS = {
    "imagefolder": Kind(
        "`train/CLASS/*.JPEG`, `val/CLASS/*.JPEG`",
        "the images are on a local disk",
        "loaders.storage.imagefolder:ImageFolderDataset",
    ),
    "streaming": Kind(
        "MDS shards, local or in S3, GCS, ...",
        "they are in a store, or a million files are too many for the file system",
        "loaders.storage.streaming:ShardDataset",
        ("path", "split", "pipeline", "seed", "local", "cache_limit"),
        is_streaming=True,
        mark="{split}/index.json",
        written_as="mds",
    ),
    "packed": Kind(
        "either of these, decoded once into memory",
        "they fit: 3 bytes a pixel, shared by all processes of a machine",
        "loaders.storage.packed:PackedDataset",
        ("source", "pack_size"),
        is_streaming=None,
    ),
    "ffcv": Kind(
        "FFCV's `train.beton` and `val.beton`",
        "you have them",
        "loaders.storage.beton:BetonDataset",
        mark="{split}.beton",
        written_as="ffcv",
    ),
    "dali": Kind(
        "either of the first two, decoded by NVIDIA DALI",
        "the GPU should decode (on a CPU it is slower than the others)",
        None,
        ("source",),
        is_streaming=None,
        image_transforms=False,
        own_decoder=True,
        loader="loaders.storage.dali:DaliLoader",
        requires="loaders.storage.dali:require_dali",
    ),
    "synthetic": Kind(
        "nothing: noise that is on the device already",
        "you measure what training would reach without loading",
        "loaders.storage.synthetic:SyntheticDataset",
        ("split", "pipeline", "seed"),
        reads_path=False,
        loader="loaders.storage.synthetic:SyntheticLoader",
    ),
}


def kind_of(storage: str | None, is_streaming: bool = False) -> Kind:
    """Return the row of a storage kind.

    Args:
        storage: a name in the table; package.module:Class for one from outside; None for the default kind.
        is_streaming: whether the default kind is that of MDS shards or of image folders.

    Raises:
        DataError: the kind is unknown.
    """
    if storage is None:
        return next(kind for kind in KINDS.values() if kind.is_streaming is is_streaming)
    if is_outside(storage):
        return OUTSIDE
    if storage not in KINDS:
        raise DataError(f"storage: {storage} given, but it must be {listing(KINDS)}{did_you_mean(storage, KINDS)}")
    return KINDS[storage]


def kind_at(folder: Path, split: str) -> str | None:
    """Identify the kind of a local folder by its mark; None if it has none, such as an image folder."""
    return next((n for n, k in KINDS.items() if k.mark and (folder / k.mark.format(split=split)).is_file()), None)


def open_dataset(
    storage: str | None,
    path: str,
    *,
    is_streaming: bool,
    local: str | None,
    split: str,
    pipeline: Pipeline,
    seed: int,
    pack_size: int | None = None,
    cache_limit: int | str | None = None,
) -> ImageDataset:
    """Open one split of a data set, importing only what its kind needs.

    Args:
        storage: a name in the table; None for the default kind.
        path: the folder, or s3://bucket/folder, that holds the split.
        is_streaming: whether a kind that reads both takes its images from MDS shards or from a folder.
        local: cache folder for the shards.
        split: `train` or `val`.
        pipeline: transforms of each image.
        seed: the run's seed.
        pack_size: short side in pixels that larger images are reduced to when packed.
        cache_limit: bytes of shards in the split's cache folder at most, as a number or with a unit, such as 200gb.

    Raises:
        DataError: the data set is missing, incomplete, or of another kind.
    """
    kind = kind_of(storage, is_streaming)
    if kind.reads_path and not path:
        raise DataError("no data set was named: give its folder, or s3://bucket/folder (train_dataset.path=...).")
    if kind.requires:
        pkgutil.resolve_name(kind.requires)()
    common: dict[str, Any] = {"local": local, "split": split, "pipeline": pipeline, "seed": seed}
    common["cache_limit"] = cache_limit
    given = {"path": path, "pack_size": pack_size, **common}
    if "source" in kind.arguments:
        given["source"] = open_dataset(None, path, is_streaming=is_streaming, **common)
    if kind.dataset is None:
        return given["source"]
    return pkgutil.resolve_name(kind.dataset)(**{name: given[name] for name in kind.arguments})
