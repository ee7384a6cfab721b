"""ImageNet for training and evaluation, and `python data.py PATH [LOCAL]` to check a data set."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from composer.core import DataSpec

from config.errors import DataError
from loaders.dataset import PictureDataset
from loaders.errors import plain
from loaders.imagefolder import ImageFolderDataset
from loaders.remote import is_remote
from loaders.sampler import EpochSampler
from loaders.transforms import NormalizationFn, PictureTransform, collate, evaluation_pipeline, training_pipeline
from loaders.workers import WorkerLoader, default_num_workers, start_worker


def build_imagenet_dataspec(
    data_path: str | os.PathLike[str],
    is_streaming: bool,
    batch_size: int,
    local: str | os.PathLike[str] | None = None,
    is_train: bool = True,
    drop_last: bool = True,
    shuffle: bool = True,
    resize_size: int = -1,
    crop_size: int = 224,
    *,
    seed: int = 0,
    image_transforms: Sequence[PictureTransform] = (),
    min_crop_area: float = 0.08,
    hflip: bool = True,
    **dataloader_kwargs: Any,
) -> DataSpec:
    """Load train/ or val/ of a data set, for this rank.

    Batches are (uint8 [B, 3, crop, crop] in channels_last memory format, int64 [B]) on the CPU; the trainer copies them
    to its device and only there are they normalised.

    Args:
        data_path: the folder, or s3://bucket/folder, that holds train/ and val/.
        is_streaming: MDS shards (True), or one folder of pictures per class (False).
        batch_size: samples per device.
        local: cache folder for the shards; each split gets its own folder in it.
        is_train: train/ with random crop and flip, or val/ with the central crop.
        drop_last: leave out what fills no whole batch.
        shuffle: a new order each epoch.
        resize_size: short side in pixels before the crop; -1 leaves pictures as they are.
        crop_size: side of the pictures in a batch, in pixels.
        seed: order and augmentation are functions of it, of the epoch and of the sample, and of nothing else.
        image_transforms: more steps after crop and flip, PIL picture -> PIL picture; training only.
        min_crop_area: the smallest part of a picture's area that a random crop shows; training only.
        hflip: mirror every other picture; training only.
        **dataloader_kwargs: torch DataLoader's own arguments, which go before the defaults.

    Raises:
        DataError: the data set is not there or not whole; one sentence per fault.
        ValueError: streaming without `local` (a DataError, too).
    """
    split = "train" if is_train else "val"
    transforms = training_pipeline(resize_size, crop_size, image_transforms, min_crop_area, hflip)
    pipeline = transforms if is_train else evaluation_pipeline(resize_size, crop_size)
    path = os.fspath(data_path) if data_path else ""
    if not path:
        raise DataError("no data set was named: give its folder, or s3://bucket/folder (train_dataset.path=...).")
    dataset: PictureDataset
    if is_streaming:
        from loaders.streaming import StreamingDataset  # half a second to import, needed by few

        dataset = StreamingDataset(path, os.fspath(local) if local else None, split, pipeline, seed, batch_size)
    elif is_remote(path):
        raise DataError(f"{path}: is in a store. Set is_streaming=true and local=/a/cache/folder, or copy it here.")
    else:
        dataset = ImageFolderDataset(path, split, pipeline, seed)
    loader = build_loader(dataset, batch_size, drop_last, shuffle, dataloader_kwargs)
    return DataSpec(loader, microbatch_transforms=NormalizationFn(), split_batch=split_batch)


def split_batch(batch: tuple[torch.Tensor, torch.Tensor], size: int | float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A batch in microbatches of `size`, the last one smaller; views, and no warning for a last batch that fits."""
    images, labels = batch
    return list(zip(images.split(int(size)), labels.split(int(size)), strict=True))


def build_loader(
    dataset: PictureDataset, batch_size: int, drop_last: bool, shuffle: bool, dataloader_kwargs: dict[str, Any]
) -> WorkerLoader:
    """A DataLoader with this rank's share of each epoch.

    Args:
        dataset: what to load.
        batch_size: samples per device.
        drop_last: leave out what fills no whole batch.
        shuffle: a new order each epoch.
        dataloader_kwargs: overrides of the defaults below.

    Raises:
        DataError: the data set does not fill a single batch.
    """
    sampler = EpochSampler(dataset, shuffle=shuffle, drop_last=drop_last)
    if drop_last and len(sampler) < batch_size:
        ranks = sampler.num_replicas
        raise DataError(
            f"a batch of {batch_size * ranks} pictures is larger than the data set of {len(dataset)}: "
            f"say train_dataset.batch_size={len(dataset) // ranks * ranks} or less."
        )
    options: dict[str, Any] = {"num_workers": None, **dataloader_kwargs}
    if options["num_workers"] is None:
        options["num_workers"] = default_num_workers()
    if options["num_workers"] > 0:
        options = {"persistent_workers": True, "prefetch_factor": 2, "worker_init_fn": start_worker, **options}
    # A generator of its own: the loader's draws must not shift the model's.
    generator = torch.Generator().manual_seed(dataset.seed)
    defaults = {"collate_fn": collate, "pin_memory": torch.cuda.is_available(), "generator": generator}
    return WorkerLoader(dataset, batch_size, sampler=sampler, drop_last=drop_last, **{**defaults, **options})


def check_dataloader() -> None:
    """Check the data set named on the command line: `python data.py PATH`, or `python data.py REMOTE LOCAL`.

    Prints what is in it and how fast it loads, writes a contact sheet, and exits with status 1 and a sentence for each
    fault.
    """
    from loaders.check import main

    try:
        status = main(sys.argv[1:], build_imagenet_dataspec)
    except Exception as error:
        sentence = plain(error)
        if sentence is None:
            raise
        sys.exit(sentence)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    check_dataloader()
