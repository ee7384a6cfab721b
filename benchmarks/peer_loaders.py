"""Whole loaders of other packages over the same images, each called as its own documentation does.

Training's random box and mirror, bytes out: the boxes are drawn by each package itself, from the same distribution.
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

QUALITY = 90  # of FFCV's own JPEGs: its ImageNet example's
SMALLEST = 0.08  # part of an image's area that a random box shows at least
AHEAD = 2  # batches that are kept ready

Batch = tuple[torch.Tensor, torch.Tensor]


def peer_kinds(folders: dict[str, Path], crop_size: int, workers: int, size: float) -> list[Kind]:
    """The loaders to compare ours with.

    Args:
        folders: the same images as `imagefolder`, `streaming` and `ffcv`.
        crop_size: side of the square in pixels.
        workers: processes or threads of each loader.
        size: mean bytes of an image.
    """
    root = folders["imagefolder"]
    beton = partial(FfcvEpochs, crop_size=crop_size, workers=workers)
    made = [
        Kind(f"FFCV, same bytes ({size / 1e3:.0f} kB)", partial(beton, folders["ffcv"] / "train.beton")),
        Kind("DALI's own pipeline", partial(DaliEpochs, root, crop_size, workers)),
        Kind("SPDL (FFmpeg)", partial(SpdlEpochs, root, crop_size, workers)),
        Kind("StreamingImageNet", partial(streaming_loader, folders["streaming"], crop_size, workers)),
    ]
    if importlib.util.find_spec("ffcv"):
        smaller = folders["ffcv"] / f"quality{QUALITY}.beton"
        less = write_smaller(root, smaller)
        made.insert(1, Kind(f"FFCV, quality {QUALITY} ({less / 1e3:.0f} kB)", partial(beton, smaller)))
    for kind in made:
        kind.peer = True
    return made


def write_smaller(root: Path, path: Path) -> float:
    """The images as JPEGs of FFCV's usual quality, in a .beton file; their mean bytes."""
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
    """The ffcv package's loader of one .beton file; threads.

    Args:
        path: the file.
        crop_size: side of the square in pixels.
        workers: threads.

    Raises:
        DataError: it is not installed, or cannot have so many threads.
    """

    _kept: ClassVar[list[Any]] = []  # numba stumbles over what it has compiled when that ends before the process

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
        except ValueError as error:  # numba's, of more threads than cores
            raise DataError(f"FFCV cannot have {workers} threads here ({error}).") from error
        self._kept.append(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._loader
        torch.set_num_threads(1)  # which FFCV has changed, for all who come after it


class DaliEpochs:
    """DALI's pipeline from files to batches, on the CPU, as in its ImageNet example.

    Args:
        root: of the image folder.
        crop_size: side of the square in pixels.
        workers: threads.

    Raises:
        DataError: DALI is not installed.
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
        """Wait until the threads that work ahead for the next epoch are done.

        Their time is this epoch's, which found its own first batches ready, and not that of whoever comes next.

        Args:
            look: seconds between two looks at this process's processor time.
            quiet: seconds without any use of it, after which they are done.
            most: seconds to wait at all.

        Returns:
            When they were, by time.perf_counter.
        """
        began = busy = time.perf_counter()
        while (now := time.perf_counter()) - busy < quiet and now - began < most:
            used = time.process_time()
            time.sleep(look)
            if time.process_time() - used > look / 10:
                busy = time.perf_counter()
        return busy


class SpdlEpochs:
    """SPDL's pipeline of threads: FFmpeg reads, decodes, crops and scales a file, and batches are put together.

    Args:
        root: of the image folder.
        crop_size: side of the square in pixels.
        workers: threads.

    Raises:
        DataError: SPDL is not installed, or finds no FFmpeg.
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
    """mosaicml-streaming's own data set for ImageNet, with torchvision's transforms on PIL images; processes."""
    from streaming.vision import StreamingImageNet

    dataset = StreamingImageNet(
        local=str(root),
        split="train",
        shuffle=True,
        batch_size=BATCH,
        transform=transforms.Compose([_in_colour, default_transforms(crop_size, floats=False)]),
    )
    return WorkerLoader(
        dataset,
        BATCH,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=start_worker,
    )


def _in_colour(image: Image.Image) -> Image.Image:
    """Grey images, which that data set leaves grey, fit into no batch of colours."""
    return image.convert("RGB")
