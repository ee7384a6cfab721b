"""Loaders of other packages for the same images, each used as its documentation shows.

All return uint8 images after a random resized crop and flip; each package draws its boxes from the same distribution.
"""

from __future__ import annotations

import importlib.util
import io
import random
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.epochs import BATCH, Kind
from benchmarks.peers import ffmpeg_filter, open_spdl, require
from benchmarks.stages import default_transforms
from common.errors import DataError
from loaders.images.boxes import ASPECT_RATIO, random_box
from loaders.images.decoding import open_image
from loaders.images.native import View
from loaders.storage.beton_writer import write_beton
from loaders.workers import WorkerLoader, start_worker

QUALITY = 90  # of FFCV's own JPEGs, as in its ImageNet example
SMALLEST = 0.08  # minimum area of a random box, relative to the image's
AHEAD = 2  # prefetched batches

Batch = tuple[torch.Tensor, torch.Tensor]


def peer_kinds(folders: dict[str, Path], crop_size: int, workers: int, size: float) -> list[Kind]:
    """Return the loaders to compare with ours.

    Args:
        folders: of the same images as `imagefolder`, `streaming` and `ffcv`.
        crop_size: in pixels.
        workers: processes or threads per loader.
        size: mean bytes of an image.
    """
    root = folders["imagefolder"]
    beton = partial(FfcvEpochs, crop_size=crop_size, workers=workers)
    kinds = [
        Kind(f"FFCV, same bytes ({size / 1e3:.0f} kB)", partial(beton, folders["ffcv"] / "train.beton")),
        Kind("DALI's own pipeline", partial(DaliEpochs, root, crop_size, workers)),
        Kind("SPDL (FFmpeg)", partial(SpdlEpochs, root, crop_size, workers)),
        Kind("StreamingImageNet", partial(streaming_loader, folders["streaming"], crop_size, workers)),
    ]
    if importlib.util.find_spec("ffcv"):
        smaller = folders["ffcv"] / f"quality{QUALITY}.beton"
        less = write_smaller(root, smaller)
        kinds.insert(1, Kind(f"FFCV, quality {QUALITY} ({less / 1e3:.0f} kB)", partial(beton, smaller)))
    for kind in kinds:
        kind.peer = True
    return kinds


def write_smaller(root: Path, path: Path) -> float:
    """Write the images as JPEGs of FFCV's usual quality to a .beton file, and return their mean bytes."""
    samples = ImageFolder(str(root / "train")).samples
    sizes: list[int] = []

    def image(index: int) -> tuple[bytes, int]:
        file, label = samples[index]
        out = io.BytesIO()
        open_image(Path(file).read_bytes()).save(out, "JPEG", quality=QUALITY)
        sizes.append(len(out.getvalue()))
        return out.getvalue(), label

    write_beton(path, len(samples), image)
    return statistics.mean(sizes)


class FfcvEpochs:
    """FFCV's loader of one .beton file, with threads.

    Args:
        path: of the file.
        crop_size: in pixels.
        workers: number of threads.

    Raises:
        DataError: if FFCV is not installed, or does not support that many threads here.
    """

    _kept: ClassVar[list[Any]] = []  # numba fails if its compiled functions are freed before the process exits

    def __init__(self, path: Path, crop_size: int, workers: int) -> None:
        loader, decoders = require("ffcv.loader"), require("ffcv.fields.decoders")
        steps = require("ffcv.transforms")
        size = crop_size, crop_size
        box = decoders.RandomResizedCropRGBImageDecoder(size, scale=(SMALLEST, 1.0), ratio=ASPECT_RATIO)
        image = [box, steps.RandomHorizontalFlip(), steps.ToTensor(), steps.ToTorchImage()]
        try:
            self._loader = loader.Loader(
                str(path),
                batch_size=BATCH,
                num_workers=workers,
                order=loader.OrderOption.RANDOM,
                os_cache=True,
                drop_last=True,
                pipelines={"image": image, "label": [decoders.IntDecoder(), steps.ToTensor(), steps.Squeeze()]},
            )
        except ValueError as error:  # from numba, for more threads than cores
            raise DataError(f"FFCV cannot use {workers} threads here ({error}).") from error
        self._kept.append(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._loader
        torch.set_num_threads(1)  # FFCV changes it, which would affect the loaders after it


class DaliEpochs:
    """DALI's CPU pipeline from files to batches, as in its ImageNet example.

    Args:
        root: of the image folder.
        crop_size: in pixels.
        workers: number of threads.

    Raises:
        DataError: if DALI is not installed.
    """

    def __init__(self, root: Path, crop_size: int, workers: int) -> None:
        dali, plugin = require("nvidia.dali"), require("nvidia.dali.plugin.pytorch")
        fn, types = dali.fn, dali.types
        pipeline = dali.Pipeline(BATCH, workers, device_id=None, seed=0, prefetch_queue_depth=AHEAD)
        with pipeline:
            data, labels = fn.readers.file(file_root=str(root / "train"), random_shuffle=True, name="Reader")
            box = {"random_area": [SMALLEST, 1.0], "random_aspect_ratio": list(ASPECT_RATIO)}
            pixels = fn.decoders.image_random_crop(data, device="cpu", output_type=types.RGB, **box)
            resize = {"interp_type": types.INTERP_TRIANGULAR, "antialias": True}
            pixels = fn.resize(pixels, resize_x=crop_size, resize_y=crop_size, **resize)
            pixels = fn.flip(pixels, horizontal=fn.random.coin_flip())
            pipeline.set_outputs(pixels, labels)
        policy = plugin.LastBatchPolicy.DROP
        self._batches = plugin.DALIClassificationIterator(
            pipeline, reader_name="Reader", last_batch_policy=policy, auto_reset=True
        )

    def __iter__(self) -> Iterator[Batch]:
        for (batch,) in self._batches:
            yield batch["data"].permute(0, 3, 1, 2), batch["label"].squeeze(-1)

    def settled(self, look: float = 0.005, quiet: float = 0.2, most: float = 10.0) -> float:
        """Wait until the threads that prefetch for the next epoch are idle, and return since when (time.perf_counter).

        Their time counts for this epoch, whose own first batches were prefetched, and not for the next loader.

        Args:
            look: seconds between two checks of this process's processor time.
            quiet: seconds without processor time after which the threads count as idle.
            most: maximum seconds to wait.
        """
        started = busy = time.perf_counter()
        while (now := time.perf_counter()) - busy < quiet and now - started < most:
            used = time.process_time()
            time.sleep(look)
            if time.process_time() - used > look / 10:
                busy = time.perf_counter()
        return busy


class SpdlEpochs:
    """SPDL's pipeline of threads: FFmpeg reads, decodes, crops and scales each file; then images are batched.

    Args:
        root: of the image folder.
        crop_size: in pixels.
        workers: number of threads.

    Raises:
        DataError: if SPDL or FFmpeg is not installed.
    """

    def __init__(self, root: Path, crop_size: int, workers: int) -> None:
        self._io, self._pipelines = open_spdl(), require("spdl.pipeline")
        self._samples = ImageFolder(str(root / "train")).samples
        self._size, self._workers = crop_size, workers

    def __iter__(self) -> Iterator[Batch]:
        samples = random.sample(self._samples, len(self._samples))
        builder = self._pipelines.PipelineBuilder().add_source(samples)
        builder = builder.pipe(self._decode, concurrency=self._workers).aggregate(BATCH, drop_last=True)
        pipeline = builder.pipe(self._batch).add_sink(AHEAD).build(num_threads=self._workers)
        with pipeline.auto_stop():
            yield from pipeline

    def _decode(self, sample: tuple[str, int]) -> tuple[Any, int]:
        path, label = sample
        packets = self._io.demux_image(path)
        box = random_box(packets.height, packets.width, SMALLEST, None)
        view = View(*box, self._size, self._size, 0, 0, self._size, self._size)
        mirror = "hflip," if random.random() < 0.5 else ""
        return self._io.decode_packets(packets, filter_desc=ffmpeg_filter(view, self._size, mirror)), label

    def _batch(self, samples: list[tuple[Any, int]]) -> Batch:
        frames, labels = zip(*samples, strict=True)
        images = self._io.to_torch(self._io.convert_frames(list(frames)))
        return images.permute(0, 3, 1, 2), torch.tensor(labels)


def streaming_loader(root: Path, crop_size: int, workers: int) -> WorkerLoader:
    """Build a loader of mosaicml-streaming's ImageNet data set, with torchvision's transforms and worker processes."""
    from streaming.vision import StreamingImageNet

    dataset = StreamingImageNet(
        local=str(root),
        split="train",
        shuffle=True,
        batch_size=BATCH,
        transform=transforms.Compose([_to_rgb, default_transforms(crop_size, floats=False)]),
    )
    return WorkerLoader(
        dataset,
        BATCH,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")  # StreamingImageNet leaves grayscale images as they are
