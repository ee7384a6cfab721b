"""The table of storage kinds and their capabilities. No torch.

A new kind needs its file and its row here; a test writes the table of docs/data.md.
"""

from __future__ import annotations

import contextlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.outside import is_outside
from common.suggest import did_you_mean, listing
from loaders.class_names import names_beside
from loaders.transport.remote import is_remote

if TYPE_CHECKING:
    from loaders.dataset import ImageDataset
    from loaders.images.transforms import Pipeline


@dataclass(frozen=True)
class Kind:
    """One kind of storage; classes and functions are given as package.module:name and imported when they are needed."""

    reads: str  # files, for the docs
    choose_when: str  # reason to choose it, for the docs
    dataset: str | None  # its ImageDataset; None: its source's
    arguments: tuple[str, ...] = ("path", "split", "pipeline", "seed")
    """Arguments that `dataset` takes: those of `open_dataset`, or `source`, an open data set of the default kind."""
    is_streaming: bool | None = False  # whether it reads MDS shards; None: its source decides
    reads_path: bool = True  # False for images that are not read; the section's other keys are then ignored
    remote: bool = False  # whether it reads a store's address without shards
    mark: str | None = None  # the file that identifies a folder of this kind, with {split} for train or val
    written_as: str | None = None  # its name for `tools.convert --to`
    image_transforms: bool = True  # whether algorithms can transform single images in its loader
    own_decoder: bool = False  # whether it decodes without loaders.images.decoders
    decoded: bool = False  # whether its images are decoded before training
    remedy: str | None = None  # what it does for a run that waits for data, if that may help
    needs_gpu: bool = False  # whether that takes a GPU
    loader: str | None = None  # its WorkerLoader; None: worker processes that run the pipeline
    requires: str | None = None  # a function that raises a DataError if a package is missing


OUTSIDE = Kind("what its class reads", "no other kind reads them", None, remote=True)
"""Row of a class from outside this project, which `data.py` opens."""
ARCHIVES = "archives"
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
        decoded=True,
        remedy="decodes only once, if memory is large enough",
    ),
    "ffcv": Kind(
        "FFCV's `train.beton` and `val.beton`",
        "you have them",
        "loaders.storage.beton:BetonDataset",
        mark="{split}.beton",
        written_as="ffcv",
    ),
    ARCHIVES: Kind(
        "WebDataset tars, ImageNet's archives, tables of paths ([archives.md](archives.md))",
        "the data set is in this form and you train once; recognized without `storage`",
        "loaders.storage.archives:ArchiveDataset",
        ("path", "split", "pipeline", "seed", "local", "cache_limit"),
    ),
    "dali": Kind(
        "either of the first two, decoded by NVIDIA DALI",
        "the GPU should decode (on a CPU it is slower than the others)",
        None,
        ("source",),
        is_streaming=None,
        image_transforms=False,
        own_decoder=True,
        remedy="decodes on the GPU",
        needs_gpu=True,
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
    """Return the row of a storage kind, or OUTSIDE for package.module:Class; raises a DataError if it is unknown.

    None is the default kind: that of MDS shards or of image folders, by `is_streaming`.
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


def is_archives(path: str) -> bool:
    """Whether a folder, a file or an address holds a data set in another form than image folders and shards."""
    from loaders.archives.forms import ReadOptions, recognize  # numpy, which a dry run does not need
    from loaders.archives.place import Place

    # Of a store that cannot be reached, the storage kind says what it needs.
    with contextlib.suppress(DataError) if is_remote(path) else contextlib.nullcontext():
        return recognize(Place(path), ReadOptions()) is not None
    return False


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
    """Open one split (`train` or `val`) of a data set, importing only what its kind needs.

    The other arguments are those of `data.build_imagenet_dataspec`. Raises a DataError if the data set is missing,
    incomplete, or of another kind.
    """
    if storage is None and not is_streaming and path and is_archives(path):
        storage = ARCHIVES
    kind = kind_of(storage, is_streaming)
    if kind.reads_path and not path:
        raise DataError("no data set was named: give its folder, or s3://bucket/folder (train_dataset.path=...).")
    if kind.requires:
        pkgutil.resolve_name(kind.requires)()
    given: dict[str, Any] = {"path": path, "local": local, "split": split, "pipeline": pipeline, "seed": seed}
    given |= {"cache_limit": cache_limit}
    if "source" in kind.arguments:
        given["source"] = open_dataset(None, is_streaming=is_streaming, **given)
    if kind.dataset is None:
        return given["source"]
    given["pack_size"] = pack_size
    dataset = pkgutil.resolve_name(kind.dataset)(**{name: given[name] for name in kind.arguments})
    if dataset.classes is not None:
        dataset.class_names = names_beside(path, dataset.classes)
    return dataset
