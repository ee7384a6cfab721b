"""NVIDIA DALI as the decoder: it decodes, resizes and mirrors images on CPU threads or a GPU.

Order, boxes and flips are chosen here, as for every other storage kind; DALI only gets encoded bytes and boxes. Seeds,
resumption and the ranks' shares therefore work the same.
"""

import importlib
import importlib.util
import re
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from composer.utils import dist

from common.errors import DataError
from loaders.dataset import ImageDataset, Key, Sample, split_key
from loaders.images.boxes import Crop, central
from loaders.images.decoding import Source, decode, open_file
from loaders.images.transforms import TrainingPipeline
from loaders.sampler import EpochSampler
from loaders.seeding import sample_seed
from loaders.workers import WorkerLoader, default_num_workers

PREFETCH = 2  # batches that DALI decodes ahead
READ_AHEAD = 2  # encoded batches that are read ahead of DALI

_FAILED = re.compile(r"sample #(\d+)")
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # except those that belong inside a scan

Batch = tuple[torch.Tensor, torch.Tensor]


def require_dali(device: str = "cpu") -> None:
    """Raise a DataError if DALI is not installed, or if `device` is `mixed` (not `cpu`) and there is no GPU."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        cuda13 = (torch.version.cuda or "").startswith("13.")
        package = "-c constraints-next.txt nvidia-dali-cuda130" if cuda13 else "-c constraints.txt nvidia-dali-cuda120"
        raise DataError(f"train_dataset.storage=dali needs NVIDIA DALI: pip install {package}==2.4.0")
    if device == "mixed" and not torch.cuda.is_available():
        raise DataError("DALI's device=mixed needs a GPU, but torch sees none: decode on the CPU.")


class DaliLoader(WorkerLoader):
    """Loader of batches (uint8 [B, 3, size, size] in channels_last memory format, int64 [B]) that DALI decodes.

    It is a DataLoader because Composer sets the epoch and saves the position of DataLoaders only. Memory: READ_AHEAD +
    PREFETCH + 1 encoded batches, and PREFETCH + 1 decoded.

    Args:
        dataset: what to load; its pipeline defines the crop.
        batch_size: samples per device.
        sampler: this rank's keys, with one image size per batch.
        drop_last: as in a DataLoader.
        num_workers: threads that read, and threads that decode; None: the default number of workers.
        device: `gpu` to decode on this rank's GPU, where the batches stay; or `cpu`.

    Raises:
        DataError: DALI is not installed, or there is no GPU.
        ValueError: the data set has image transforms, an interpolation or a crop_ratio, which DALI cannot apply.
    """

    dataset: ImageDataset
    sampler: EpochSampler

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        sampler: EpochSampler,
        drop_last: bool,
        num_workers: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = "mixed" if device == "gpu" else "cpu"  # as DALI calls them
        require_dali(self.device)
        if dataset.pipeline.image_transforms:
            raise ValueError("DALI decodes straight to batches: image_transforms cannot be applied to its images")
        if dataset.pipeline.filter or getattr(dataset.pipeline, "crop_ratio", None):
            raise ValueError("DALI resizes in its own way: interpolation and crop_ratio cannot be applied")
        super().__init__(dataset, batch_size, sampler=sampler, drop_last=drop_last)
        # Set after torch's __init__, which would start processes.
        self.num_workers = max(1, num_workers or default_num_workers())

    def _get_iterator(self) -> Any:
        feed = _Feed(self)
        try:
            yield from self._batches(build_pipeline(self, feed), feed)
        finally:
            feed.close()

    def _batches(self, pipeline: Any, feed: "_Feed") -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        # On a GPU, DALI must not reuse a batch's memory before this stream is done with it.
        stream = torch.cuda.current_stream() if self.device == "mixed" else None
        while True:
            try:
                (output,) = pipeline.run(stream)
            except StopIteration:
                return
            except RuntimeError as error:
                feed.explain(error)
                raise
            images = torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)
            yield images, torch.tensor([label for _, label in feed.in_flight.popleft()])


def build_pipeline(loader: DaliLoader, feed: "_Feed") -> Any:
    """Build the nvidia.dali.Pipeline of one epoch, from a feed to uint8 [B, size, size, 3]."""
    dali: Any = importlib.import_module("nvidia.dali")  # takes half a second; and its stubs lack its constants
    fn, types = dali.fn, dali.types
    mixed, crop = loader.device == "mixed", loader.dataset.pipeline
    resize = {"interp_type": types.INTERP_TRIANGULAR, "antialias": True}
    decoding = {
        "device": loader.device,
        "output_type": types.RGB,
        "jpeg_fancy_upsampling": True,  # as libjpeg-turbo does in PIL and torchvision
        "adjust_orientation": False,  # as in PIL's convert("RGB")
    }
    pipeline = dali.Pipeline(
        batch_size=loader.batch_size,
        num_threads=loader.num_workers,
        device_id=dist.get_local_rank() if mixed else None,
        prefetch_queue_depth=PREFETCH,
    )
    with pipeline:
        names = ["encoded", "anchor", "shape"]
        names += ["whole"] if crop.resize_size > 0 else []
        names += ["size", "flip"] if crop.random else []
        batches = (tuple(batch[name] for name in names) for batch in feed)
        given = dict(zip(names, fn.external_source(source=batches, num_outputs=len(names)), strict=True))
        box = given["anchor"], given["shape"]
        if crop.random and crop.resize_size <= 0:
            pixels = fn.decoders.image_slice(given["encoded"], *box, axes=[0, 1], **decoding)
        else:
            pixels = fn.decoders.image(given["encoded"], **decoding)
            if crop.resize_size > 0:
                pixels = fn.resize(pixels, size=given["whole"], **resize)
            pixels = fn.slice(pixels, *box, axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)
        if crop.random:
            pixels = fn.flip(fn.resize(pixels, size=given["size"], **resize), horizontal=given["flip"])
        pipeline.set_outputs(pixels)
    return pipeline


class _Sample(NamedTuple):
    """One image as read: its encoded bytes (uint8), its size in pixels, its label."""

    encoded: np.ndarray
    height: int
    width: int
    label: int


class _Feed:
    """One epoch's input for DALI: threads read the images ahead, this thread draws the boxes."""

    def __init__(self, loader: DaliLoader) -> None:
        self.dataset = loader.dataset
        self.in_flight: deque[list[tuple[int, int]]] = deque()  # index and label of each image that DALI is decoding
        self._keys = cast(Iterable[list[Key]], loader.batch_sampler)
        self._pool = ThreadPool(loader.num_workers)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the inputs of the pipeline's operators by name, with one entry per image of the batch."""
        reads: deque[tuple[list[Key], AsyncResult[list[_Sample]]]] = deque()
        for keys in self._keys:
            reads.append((keys, self._pool.map_async(self._read, keys)))
            if len(reads) > READ_AHEAD:
                yield self._batch(*reads.popleft())
        while reads:
            yield self._batch(*reads.popleft())

    def close(self) -> None:
        """Stop the threads without waiting for reads that hang."""
        self._pool.terminate()

    def explain(self, error: RuntimeError) -> None:
        """Raise a DataError that names the image if DALI's error is about one."""
        if match := _FAILED.search(str(error)):
            index, _ = self.in_flight[0][int(match.group(1))]
            raise self.dataset.unreadable(index, RuntimeError("DALI cannot decode it")) from error

    def _read(self, key: Key) -> _Sample:
        index = split_key(key).image
        source, label = self.dataset.read(index)
        try:
            return _Sample(*encoded(source), label)
        except Exception as error:
            raise self.dataset.unreadable(index, error) from error

    def _batch(self, keys: list[Key], result: "AsyncResult[list[_Sample]]") -> dict[str, Any]:
        samples = result.get()
        self.in_flight.append([(split_key(key).image, s.label) for key, s in zip(keys, samples, strict=True)])
        with torch.random.fork_rng(devices=()):  # the trainer's draws must not depend on how its data is loaded
            views = [self._view(split_key(key), sample) for key, sample in zip(keys, samples, strict=True)]
        whole, crops, sizes = zip(*views, strict=True)
        return {
            "encoded": [sample.encoded for sample in samples],
            "whole": np.array(whole, np.float32),
            "anchor": np.array([(crop.top, crop.left) for crop in crops], np.int32),
            "shape": np.array([(crop.height, crop.width) for crop in crops], np.int32),
            "size": np.array([(size, size) for size in sizes], np.float32),
            "flip": np.array([crop.flip for crop in crops], np.int32),
        }

    def _view(self, key: Sample, sample: _Sample) -> tuple[tuple[int, int], Crop, int]:
        """Return the size to which the whole image is resized, the box in it, and the size of the crop."""
        pipeline = self.dataset.pipeline
        size = key.size or pipeline.crop_size
        whole = pipeline.resized_shape(sample.height, sample.width)
        if not isinstance(pipeline, TrainingPipeline):
            return whole, central(*whole, size), size
        # Same as loaders.seeding.seeded in a tenth of the time, because boxes only need torch's generator.
        torch.default_generator.manual_seed(sample_seed(self.dataset.seed, key.epoch, key.image, key.copy))
        return whole, pipeline.draw(*whole), size


def encoded(source: Source) -> tuple[np.ndarray, int, int]:
    """Return an image as a file (uint8) that DALI decodes to the pixels of `decoding.decode`, its height and its width.

    An ordinary JPEG stays unchanged: gray or color, with a single scan up to the end. Everything else is decoded here,
    because DALI converts CMYK, palettes, alpha and 16 bits differently, and silently fills a scan that is truncated or
    damaged by a marker with gray.

    Raises:
        Exception: as for `decode`.
    """
    if isinstance(source, bytes) and source.startswith(_JPEG_START):
        image = open_file(source)
        marker = _MARKER.search(source, image.fp.tell())  # type: ignore[union-attr]  # after the header
        ends_well = marker is not None and source[marker.start() :] == _JPEG_END
        if ends_well and image.format == "JPEG" and image.mode in ("RGB", "L"):
            return np.frombuffer(source, np.uint8), image.height, image.width
    pixels = decode(source).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    portable = b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()  # PPM: a header, then the pixels
    return np.frombuffer(portable, np.uint8), height, width
