"""Time whole epochs of each loader, in turns: wall-clock and processor time."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.peers import left_out
from benchmarks.stages import default_transforms
from data import build_imagenet_dataspec
from loaders.storage.kinds import KINDS
from loaders.workers import WorkerLoader, start_worker

DEFAULT = "torchvision default, floats"
DEFAULT_BYTES = "torchvision default, bytes"
LIBJPEG = "imagefolder, libjpeg"
TABLES = {"imagefolder, tables": 0, "streaming, tables": 0, "imagefolder, tables, 8": 8, "streaming, tables, 8": 8}
"""Loaders with seek tables: storage kind and more -> `every` of `native.seek_table`."""
BATCH = 100


@dataclass
class Kind:
    """A loader of the same images, and the time of its epochs, one value per round."""

    name: str
    make: Callable[[], Any]
    wall: list[float] = field(default_factory=list)  # seconds per image
    processor: list[float] = field(default_factory=list)  # seconds per image, summed over all cores
    peer: bool = False  # another package's loader


def kinds(folders: dict[str, Path], crop_size: int, workers: int, names: list[str]) -> list[Kind]:
    """Return the loaders to compare, torchvision's default first.

    Args:
        folders: of the same images as `imagefolder`, `streaming`, `ffcv` and the names in TABLES.
        crop_size: in pixels.
        workers: processes per loader.
        names: of the storage kinds, of TABLES, or LIBJPEG.
    """
    defaults = [
        Kind(name, partial(default_loader, folders["imagefolder"], crop_size, workers, name == DEFAULT))
        for name in (DEFAULT, DEFAULT_BYTES)
    ]

    def ours(name: str) -> Any:
        root = folders.get(name, folders["imagefolder"])
        storage = storage_of(name)
        streams = bool(KINDS[storage].is_streaming)
        spec = build_imagenet_dataspec(
            root,
            streams,
            BATCH,
            local=root if streams else None,
            storage=storage,
            crop_size=crop_size,
            num_workers=workers,
            decoder="native_libjpeg" if name == LIBJPEG else "auto",
        )
        return spec.dataloader

    return defaults + [Kind(name, partial(ours, name)) for name in names]


def storage_of(name: str) -> str:
    """Return the storage kind of one of our loaders."""
    return name.split(",")[0]


def default_loader(root: Path, crop_size: int, workers: int, floats: bool) -> DataLoader:
    """Build a loader with ImageFolder, PIL and torchvision's transforms, as in torchvision's examples."""
    dataset = ImageFolder(str(root / "train"), default_transforms(crop_size, floats))
    return WorkerLoader(
        dataset,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
    )


def measure(candidates: list[Kind], rounds: int, log: Callable[[str], None]) -> list[Kind]:
    """Time `rounds` epochs of each loader, taking turns, after a warm-up epoch.

    Returns:
        The loaders that could be built; `log` gets the reason for any other.
    """
    loaders, built = {}, []
    for kind in candidates:
        with left_out(kind.name, log, kind.peer):
            loaders[kind.name] = kind.make()
            if kind.peer:
                _epoch(loaders[kind.name], 0)
            built.append(kind)
        if kind in built and not kind.peer:
            _epoch(loaders[kind.name], 0)  # outside left_out: damaged images must end the benchmark
    for number in range(1, rounds + 1):
        for kind in built:
            wall, processor, images = _epoch(loaders[kind.name], number)
            kind.wall.append(wall / images)
            kind.processor.append(processor / images)
    loaders.clear()
    gc.collect()
    return built


def _epoch(loader: Any, number: int) -> tuple[float, float, int]:
    """Return one epoch's wall-clock seconds, processor seconds of all processes, and images."""
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(number)
    used, started, count = _processor_seconds(), time.perf_counter(), 0
    for images, _ in loader:
        count += len(images)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    ended = loader.settled() if hasattr(loader, "settled") else time.perf_counter()
    return ended - started, _processor_seconds() - used, count


def _processor_seconds() -> float:
    """Return the processor time of this process, its threads and its workers."""
    return time.process_time() + sum(map(_seconds_of, psutil.Process().children(recursive=True)))


def _seconds_of(process: psutil.Process) -> float:
    """Return another process's processor time; on Linux from its clock, because /proc counts only 1/100 s."""
    if sys.platform == "linux":
        return time.clock_gettime(~process.pid << 3 | 2)  # as clock_getcpuclockid(3) computes the clock's id
    times = process.cpu_times()
    return times.user + times.system
