"""From the name of a storage kind to its data set, and from a data set to this rank's loader."""

from __future__ import annotations

from typing import Any

import torch

from common.errors import DataError
from loaders.dataset import PictureDataset
from loaders.images.transforms import Pipeline, collate
from loaders.memory import allow_many_files, check_shared_memory, prefetch_factor
from loaders.sampler import EpochSampler
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.transport.remote import is_remote
from loaders.workers import WorkerLoader, decode_threads, default_num_workers, start_worker


def default_storage(is_streaming: bool) -> str:
    """The kind of a data set that names none."""
    return "streaming" if is_streaming else "imagefolder"


def open_dataset(
    storage: str,
    path: str,
    *,
    is_streaming: bool,
    local: str | None,
    split: str,
    pipeline: Pipeline,
    seed: int,
    pack_size: int | None = None,
    cache_limit: int | str | None = None,
) -> PictureDataset:
    """Open one split of a data set. What only one kind needs is imported for that kind alone.

    Args:
        storage: imagefolder, streaming, packed, dali, ffcv or synthetic.
        path: the folder, or s3://bucket/folder, that holds the split.
        is_streaming: for packed and dali: whether they take their pictures from MDS shards, and not from a folder.
        local: cache folder for the shards.
        split: `train` or `val`.
        pipeline: what is done to each picture.
        seed: the run's seed.
        pack_size: for packed: the short side in pixels that larger pictures are reduced to.
        cache_limit: bytes of shards that the cache folder may hold for the split, as a number or as in 200gb.

    Raises:
        DataError: the data set is not there, not whole, or not of this kind.
    """
    if storage == "synthetic":
        from loaders.storage.synthetic import SyntheticDataset

        return SyntheticDataset(split, pipeline, seed)
    if not path:
        raise DataError("no data set was named: give its folder, or s3://bucket/folder (train_dataset.path=...).")
    if storage == "ffcv":
        from loaders.storage.beton import BetonDataset

        return BetonDataset(path, split, pipeline, seed)
    if storage == "dali":
        from loaders.storage.dali import require_dali

        require_dali()
    if is_streaming or storage == "streaming":
        from loaders.storage.streaming import ShardDataset  # half a second to import, needed by few

        dataset: PictureDataset = ShardDataset(path, local, split, pipeline, seed, cache_limit)
    elif is_remote(path):
        raise DataError(f"{path}: is in a store. Set is_streaming=true local=/a/cache/folder, or copy it here.")
    else:
        dataset = ImageFolderDataset(path, split, pipeline, seed)
    if storage == "packed":
        from loaders.storage.packed import PackedDataset

        return PackedDataset(dataset, pack_size)
    return dataset


def build_loader(
    storage: str,
    dataset: PictureDataset,
    batch_size: int,
    drop_last: bool,
    shuffle: bool,
    dataloader_kwargs: dict[str, Any],
) -> WorkerLoader:
    """A DataLoader with this rank's share of each epoch.

    Args:
        storage: as for `open_dataset`.
        dataset: what to load.
        batch_size: samples per device.
        drop_last: leave out what fills no whole batch.
        shuffle: a new order each epoch.
        dataloader_kwargs: overrides of the defaults below.

    Raises:
        DataError: the data set does not fill a single batch, or its batches do not fit into shared memory.
    """
    sampler = EpochSampler(dataset, shuffle=shuffle, drop_last=drop_last, batch_size=batch_size)
    if drop_last and len(sampler) < batch_size:
        ranks = sampler.num_replicas
        raise DataError(
            f"a batch of {batch_size * ranks} pictures is larger than the data set of {len(dataset)}: "
            f"say train_dataset.batch_size={len(dataset) // ranks * ranks} or less."
        )
    if storage == "synthetic":
        from loaders.storage.synthetic import SyntheticLoader

        return SyntheticLoader(dataset, batch_size, sampler, drop_last)  # type: ignore[arg-type]
    if storage == "dali":
        from loaders.storage.dali import DaliLoader

        threads = dataloader_kwargs.get("num_workers")
        device = "mixed" if torch.cuda.is_available() else "cpu"
        return DaliLoader(dataset, batch_size, sampler, drop_last, threads or default_num_workers(), device)
    # A generator of its own: the loader's draws must not shift the model's.
    generator = torch.Generator().manual_seed(dataset.seed)
    defaults = {"collate_fn": collate, "pin_memory": torch.cuda.is_available(), "generator": generator}
    options = {**defaults, **worker_options(batch_size, dataset.pipeline.crop_size, dataloader_kwargs)}
    dataset.pipeline.threads = decode_threads(options["num_workers"])
    loader = WorkerLoader(dataset, batch_size, sampler=sampler, drop_last=drop_last, **options)
    if options["collate_fn"] is collate:
        loader.slot_bytes = batch_size * dataset.pipeline.crop_size**2 * 3
    return loader


def worker_options(batch_size: int, crop_size: int, given: dict[str, Any]) -> dict[str, Any]:
    """The DataLoader's arguments about workers: what was given, and for the rest what the machine can bear.

    Args:
        batch_size: samples per device.
        crop_size: side of a picture in pixels.
        given: torch DataLoader's own arguments.

    Raises:
        DataError: the batches do not fit into shared memory.
    """
    workers = given.get("num_workers")
    if workers is None:
        workers = default_num_workers()
    if workers == 0:
        return {**given, "num_workers": 0}
    batch_bytes = batch_size * crop_size * crop_size * 3
    prefetch = given.get("prefetch_factor") or prefetch_factor(batch_bytes, workers)
    check_shared_memory(batch_bytes, workers, prefetch)
    allow_many_files()
    defaults = {"persistent_workers": True, "worker_init_fn": start_worker}
    return {**defaults, **given, "num_workers": workers, "prefetch_factor": prefetch}
