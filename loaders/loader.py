"""This rank's loader for a data set."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch

from loaders.dataset import ImageDataset
from loaders.errors import BatchTooLarge
from loaders.images.transforms import collate
from loaders.memory import allow_many_files, check_shared_memory, prefetch_factor
from loaders.sampler import EpochSampler
from loaders.storage.kinds import kind_of
from loaders.workers import WorkerLoader, decode_threads, default_num_workers, start_worker


def build_loader(
    storage: str | None,
    dataset: ImageDataset,
    batch_size: int,
    drop_last: bool,
    shuffle: bool,
    dataloader_kwargs: dict[str, Any],
    device: str | None = None,
) -> WorkerLoader:
    """Build a DataLoader over this rank's share of each epoch.

    `batch_size` is per device; the arguments are those of `data.build_imagenet_dataspec`.

    Raises:
        DataError: the data set is smaller than one batch, or its batches do not fit into shared memory.
    """
    sampler = EpochSampler(dataset, shuffle=shuffle, drop_last=drop_last, batch_size=batch_size)
    if drop_last and len(sampler) < batch_size:
        raise BatchTooLarge(batch_size * sampler.num_replicas, dataset.epoch_size, sampler.num_replicas)
    device = device or ("gpu" if torch.cuda.is_available() else "cpu")
    if own := kind_of(storage).loader:
        workers = dataloader_kwargs.get("num_workers")
        return pkgutil.resolve_name(own)(dataset, batch_size, sampler, drop_last, workers, device)
    # A separate generator, so that the loader's draws do not shift the model's.
    generator = torch.Generator().manual_seed(dataset.seed)
    defaults = {"collate_fn": collate, "pin_memory": device == "gpu", "generator": generator}
    options = {**defaults, **worker_options(batch_size, dataset.pipeline.crop_size, dataloader_kwargs)}
    dataset.pipeline.threads = decode_threads(options["num_workers"])
    loader = WorkerLoader(dataset, batch_size, sampler=sampler, drop_last=drop_last, **options)
    if options["collate_fn"] is collate:
        loader.slot_bytes = batch_size * dataset.pipeline.crop_size**2 * 3
    return loader


def worker_options(batch_size: int, crop_size: int, given: dict[str, Any]) -> dict[str, Any]:
    """Add this machine's defaults to DataLoader arguments; DataError if the batches do not fit into shared memory."""
    workers = given.get("num_workers")
    if workers is None:
        workers = default_num_workers()
    if workers == 0:
        return {**given, "num_workers": 0}
    batch_bytes = batch_size * crop_size * crop_size * 3
    prefetch = given.get("prefetch_factor") or prefetch_factor(batch_bytes, workers)
    check_shared_memory(batch_bytes, workers, prefetch)
    allow_many_files()
    # Slots and signals need forked workers (loaders/workers.py); since Python 3.14 fork is no longer the default.
    defaults = {"persistent_workers": True, "worker_init_fn": start_worker, "multiprocessing_context": "fork"}
    return {**defaults, **given, "num_workers": workers, "prefetch_factor": prefetch}
