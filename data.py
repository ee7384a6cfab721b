"""Load ImageNet for training and evaluation; `python data.py PATH [LOCAL]` checks a data set."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from composer.core import DataSpec

from loaders.dataset import ImageDataset
from loaders.images.transforms import EvaluationPipeline, NormalizationFn, Pipeline, PixelTransform, TrainingPipeline
from loaders.loader import build_loader
from loaders.storage.kinds import open_dataset
from recipes import registry


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
    storage: str | None = None,
    pack_size: int | None = None,
    cache_limit: int | str | None = None,
    image_transforms: Sequence[PixelTransform] = (),
    min_crop_area: float = 0.08,
    hflip: bool = True,
    repeats: int = 1,
    decoder: str = "auto",
    interpolation: str = "bilinear",
    crop_ratio: float | None = None,
    device: str | None = None,
    **dataloader_kwargs: Any,
) -> DataSpec:
    """Load this rank's part of the train/ or val/ split of a data set.

    Batches are (uint8 [B, 3, crop, crop] in channels_last, int64 [B]) on the CPU; the trainer's device normalizes them.

    Args:
        data_path: the folder, or s3://bucket/folder, that contains train/ and val/.
        is_streaming, storage: MDS shards or not; another of `loaders.storage.kinds`, or package.module:Class.
        batch_size: samples per device.
        local, cache_limit: cache folder for shards, a subfolder per split, and how much each may hold, as 200gb.
        is_train: train/ with random crop and flip, or val/ with the central crop.
        drop_last, shuffle: whether to drop an incomplete last batch, and to use a new order in each epoch.
        resize_size, crop_size: short side before the crop (-1: no resize), and side of a batch's images, in pixels.
        seed: order and augmentation depend only on it, the epoch and the sample.
        pack_size: storage packed: short side, in pixels, to which larger images are reduced in memory.
        image_transforms: additional steps after crop and flip, uint8 [3, H, W] to the same; training only.
        min_crop_area, hflip: smallest part of an image that a random crop covers; mirror half of them; training only.
        repeats: how often an epoch shows each of its images, of which it then has fewer; training only.
        decoder, interpolation: names in `loaders.images.decoders`; auto: native if it is built, else torchvision.
        crop_ratio: central square / short side, resized to crop_size in place of resize_size; evaluation only.
        device: cpu or gpu, where the trainer computes; None: gpu if there is one.
        **dataloader_kwargs: arguments of torch's DataLoader, overriding the defaults.

    Raises:
        DataError: the data set is missing or incomplete, or streams without `local` (then also a ValueError).
    """
    if is_train:
        drawn = image_transforms, min_crop_area, hflip
        pipeline: Pipeline = TrainingPipeline(resize_size, crop_size, *drawn, decoder, interpolation)
    else:
        pipeline = EvaluationPipeline(resize_size, crop_size, decoder, interpolation, crop_ratio)
    given = {"path": data_path, "local": local, "pipeline": pipeline, "seed": seed}
    dataset = _open(storage, is_train, given, is_streaming=is_streaming, pack_size=pack_size, cache_limit=cache_limit)
    dataset.repeats = repeats if is_train else 1
    loader = build_loader(storage, dataset, batch_size, drop_last, shuffle, dataloader_kwargs, device)
    return DataSpec(loader, microbatch_transforms=NormalizationFn(), split_batch=split_batch)


def _open(storage: str | None, is_train: bool, given: dict[str, Any], **ours: Any) -> ImageDataset:
    """Open a split; a class from outside this checkout takes `given` and `split` alone, our own kinds `ours` too."""
    path, local = given["path"], given["local"]
    given |= {"path": os.fspath(path) if path else "", "local": os.fspath(local) if local else None}
    given["split"] = "train" if is_train else "val"
    if storage and registry.is_outside(storage):
        return registry.build("storage", storage, given)
    return open_dataset(storage, **given, **ours)


def split_batch(batch: tuple[torch.Tensor, torch.Tensor], size: int | float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Split a batch into views of at most `size` images; unlike Composer's default, without warning for a small one."""
    images, labels = batch
    return list(zip(images.split(int(size)), labels.split(int(size)), strict=True))


def check_dataloader() -> None:
    """Check the data set named on the command line: `python data.py PATH`, or `python data.py REMOTE LOCAL`.

    Prints its contents and loading speed, and writes a contact sheet. Exits with status 1 and a sentence for each
    problem found.
    """
    from common.command import run
    from loaders.storage.inspection import main

    if status := run(lambda words: main(words, build_imagenet_dataspec)):
        sys.exit(status)


if __name__ == "__main__":
    check_dataloader()
