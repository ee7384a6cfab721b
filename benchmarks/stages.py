"""Measure each step from a file to the device on one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision import transforms

from loaders.images import native
from loaders.images.decoding import open_image
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD, NormalizationFn, TrainingPipeline, collate
from recipes.augmentations import RandomOperations

CHUNK = 20  # images per time measurement; few enough to stay in the CPU's cache
BATCH = 100  # images per batch

Seconds = dict[str, float]


def default_transforms(crop_size: int, floats: bool) -> Callable[[Any], Any]:
    """Return torchvision's usual training transforms for PIL images, to normalized floats or to bytes."""
    steps = [transforms.RandomResizedCrop(crop_size), transforms.RandomHorizontalFlip()]
    if floats:
        return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD)])
    return transforms.Compose([*steps, transforms.PILToTensor()])


def measure_stages(files: list[Path], crop_size: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Return seconds per image of each stage and each complete pipeline, one entry per round, on one thread.

    The stages are those of our pipeline with torchvision's decoder; the native decoder merges two of them. The complete
    pipelines, from a file's bytes to a sample, are ours with each decoder, "default, bytes" and "default, floats". All
    take turns, so that a slow moment of the machine slows all of them.
    """
    pipeline = TrainingPipeline(-1, crop_size, decoder="torchvision")
    operations = RandomOperations(10, 1, "all")
    pipelines: dict[str, Callable[[bytes], Any]] = {"ours, torchvision": pipeline}
    if native.available():
        pipelines["ours, native"] = TrainingPipeline(-1, crop_size, decoder="native")
    for name in ("bytes", "floats"):
        pipelines[f"default, {name}"] = partial(_default, default_transforms(crop_size, name == "floats"))
    per_image: dict[str, list[float]] = {}
    for _ in range(rounds):
        seconds: Seconds = {}
        squares: list[torch.Tensor] = []
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            data = _timed(seconds, "read", Path.read_bytes, chunk)
            pixels = _timed(seconds, "decode", pipeline.open, data)
            cut = _timed(seconds, "crop, resize, flip", partial(pipeline.cut, size=crop_size), pixels)
            _timed(seconds, "augment (RandAugment)", operations, cut)
            squares += cut
            for name, complete in pipelines.items():
                _timed(seconds, name, complete, data)
        _measure_batches(seconds, squares, device)
        for name, value in seconds.items():
            per_image.setdefault(name, []).append(value / len(files))
    return per_image


def _measure_batches(seconds: Seconds, squares: list[torch.Tensor], device: str) -> None:
    """Measure the stages that work on batches."""
    normalize = NormalizationFn()
    for start in range(0, len(squares), BATCH):
        samples = [(square, 0) for square in squares[start : start + BATCH]]
        (batch,) = _timed(seconds, "collate", collate, [samples])

        def to_device(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
            normalize((batch[0].to(device), batch[1].to(device)))
            if device == "cuda":
                torch.cuda.synchronize()

        _timed(seconds, f"to {device}, normalize", to_device, [batch], clock=time.perf_counter)


def _default(transform: Callable[[Any], Any], data: bytes) -> Any:
    return transform(open_image(data))


def _timed(
    seconds: Seconds,
    name: str,
    do: Callable[[Any], Any],
    items: list[Any],
    clock: Callable[[], float] = time.process_time,
) -> list[Any]:
    """Call `do` on each item, add the total time to seconds[name], and return the results."""
    started = clock()
    results = [do(item) for item in items]
    seconds[name] = seconds.get(name, 0.0) + clock() - started
    return results
