"""Batches of images with the pixels of an evaluation, without the files that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from PIL import ImageOps

from common.errors import DataError
from common.store_faults import StoreOutOfReach
from loaders.errors import unreadable
from loaders.images.decoding import Source, open_file
from loaders.images.transforms import EvaluationPipeline
from loaders.workers import decode_threads
from tools.predict.inputs import NotAnImage, read

CHUNK = 16  # encoded images in memory at a time
READERS = 8  # threads: a store answers many requests at once
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright

Batch = tuple[list[str], torch.Tensor]
"""Names, and images as uint8 [B, 3, S, S]."""


class Reader:
    """Reads, decodes, resizes and crops images.

    Args:
        pipeline: the evaluation's.
        upright: whether to turn images by their orientation tag, which training and evaluation ignore.
        report: called with a sentence for each file that cannot be used.
    """

    def __init__(self, pipeline: EvaluationPipeline, upright: bool, report: Callable[[str], None]) -> None:
        self.pipeline, self.upright, self.report = pipeline, upright, report
        self.pipeline.threads = decode_threads(0)
        self.bytes = 0  # of the files read
        self.unreadable = 0  # files
        self.turned = 0  # images whose tag says that they are not upright

    def batches(self, names: Iterator[str], size: int) -> Iterator[Batch]:
        """Yield all images in batches of `size`, less those that cannot be read; StoreOutOfReach if none can."""
        with ThreadPoolExecutor(READERS) as pool:
            while chosen := list(islice(names, size)):
                parts = []
                for start in range(0, len(chosen), CHUNK):
                    chunk = chosen[start : start + CHUNK]
                    *given, sizes = zip(*pool.map(self._source, chunk), strict=True)
                    self.bytes += sum(sizes)
                    parts.append(self._decoded(chunk, *given))
                if kept := [name for names, _ in parts for name in names]:
                    yield kept, torch.cat([images for _, images in parts])

    def _source(self, name: str) -> tuple[Source | Exception, bool, int]:
        """Read a file, or return the fault; whether its tag says that it is not upright; and its bytes."""
        try:
            data = read(name)
            return *turned(data, self.upright), len(data)
        except Exception as error:  # PIL raises anything
            return error, False, 0

    def _decoded(
        self, names: Sequence[str], sources: Sequence[Source | Exception], not_upright: Sequence[bool]
    ) -> Batch:
        """Decode a chunk, without what cannot be read."""
        images, faults = decode(self.pipeline, sources)
        for at, error in faults.items():
            self._report(names[at], error)
        kept = [at for at in range(len(names)) if at not in faults]
        self.turned += sum(not_upright[at] for at in kept)
        return [names[at] for at in kept], images[kept].permute(0, 3, 1, 2)

    def _report(self, name: str, error: Exception) -> None:
        self.unreadable += 1
        if isinstance(error, DataError):  # names the address
            self.report(str(error))
        else:
            self.report(f"{name}: {error if isinstance(error, NotAnImage) else unreadable(error)}")


def turned(data: bytes, upright: bool) -> tuple[Source, bool]:
    """Return an encoded image, turned by its orientation tag if `upright`; and whether its tag says that it should be.

    Raises whatever PIL raises, for an image that it cannot turn.
    """
    is_turned = False
    with contextlib.suppress(Exception):  # the decoder reports it
        is_turned = open_file(data).getexif().get(ORIENTATION, 1) in range(2, 9)
    return ImageOps.exif_transpose(open_file(data)) if is_turned and upright else data, is_turned


def decode(
    pipeline: EvaluationPipeline, sources: Sequence[Source | Exception]
) -> tuple[torch.Tensor, dict[int, Exception]]:
    """Decode, resize and crop images as loaders.dataset does: in one call if the decoder can, else one by one.

    Args:
        pipeline: the evaluation's.
        sources: images, or faults that were met before.

    Returns:
        Images, uint8 [B, S, S, 3], and by their indices the faults of those that cannot be used.
    """
    side = pipeline.crop_size
    images = torch.empty((len(sources), side, side, 3), dtype=torch.uint8)
    rest: Sequence[int] = range(len(sources))
    if pipeline.batches:
        rest = pipeline.fill(images, sources, [0] * len(sources))  # type: ignore[arg-type]
    faults = {}
    for at in rest:
        try:
            source = sources[at]
            if isinstance(source, Exception):
                raise source
            images[at] = pipeline(source).permute(1, 2, 0)
        except StoreOutOfReach:
            raise
        except Exception as error:  # each decoder raises its own
            faults[at] = error
    return images, faults
