"""What each step from a file to the device costs on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import transforms

from loaders.images import native
from loaders.images.decoding import open_image
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD, NormalizationFn, TrainingPipeline, collate
from recipes.augmentations import RandomOperations

CHUNK = 20  # images between two looks at the clock: few enough to stay in the cache, as a worker's batch does not
BATCH = 100  # images of one batch

Seconds = dict[str, float]


def default_transforms(crop_size: int, floats: bool) -> Callable[[Any], Any]:
    """torchvision's usual training transforms on PIL images, to normalised floats or to bytes."""
    steps = [transforms.RandomResizedCrop(crop_size), transforms.RandomHorizontalFlip()]
    if floats:
        return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD)])
    return transforms.Compose([*steps, transforms.PILToTensor()])


def measure_stages(files: list[Path], crop_size: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per image of each stage and of whole ways, one list entry per round; one thread.

    The stages are ours with torchvision's decoder, one after another; the native one does two of them at once. "ours"
    with each decoder, "default, bytes" and "default, floats" are whole ways from the file to what is collated, in turns
    with one another, so that a slow moment of the machine slows all of them.
    """
    pipeline = TrainingPipeline(-1, crop_size, decoder="torchvision")
    operations = RandomOperations(10, 1, "all")
    ways: dict[str, Callable[[bytes], Any]] = {"ours, torchvision": pipeline}
    if native.available():
        ways["ours, native"] = TrainingPipeline(-1, crop_size, decoder="native")
    for name in ("bytes", "floats"):
        ways[f"default, {name}"] = partial(_default, default_transforms(crop_size, name == "floats"))
    found: dict[str, list[float]] = {}
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
            for name, way in ways.items():
                _timed(seconds, name, way, data)
        _measure_batches(seconds, squares, device)
        for name, value in seconds.items():
            found.setdefault(name, []).append(value / len(files))
    return found


def _measure_batches(seconds: Seconds, squares: list[torch.Tensor], device: str) -> None:
    """The stages that work on whole batches."""
    normalise = NormalizationFn()
    for start in range(0, len(squares), BATCH):
        samples = [(square, 0) for square in squares[start : start + BATCH]]
        (batch,) = _timed(seconds, "collate", collate, [samples])

        def to_device(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
            normalise((batch[0].to(device), batch[1].to(device)))
            if device == "cuda":
                torch.cuda.synchronize()

        _timed(seconds, f"to {device}, normalise", to_device, [batch], clock=time.perf_counter)


def _default(transform: Callable[[Any], Any], data: bytes) -> Any:
    return transform(open_image(data))


def _timed(
    seconds: Seconds,
    name: str,
    do: Callable[[Any], Any],
    items: list[Any],
    clock: Callable[[], float] = time.process_time,
) -> list[Any]:
    """What `do` makes of each item; the seconds that all took are added up under `name`."""
    began = clock()
    results = [do(item) for item in items]
    seconds[name] = seconds.get(name, 0.0) + clock() - began
    return results


def median_ratio(numerators: list[float], denominators: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the rounds' own ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def mean_bytes(files: list[Path]) -> float:
    """Of an encoded image."""
    return float(np.mean([path.stat().st_size for path in files]))
