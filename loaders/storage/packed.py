"""A whole data set decoded in memory, once per node: no JPEG is decoded twice, at 3 bytes a pixel."""

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from composer.utils import dist

from common.errors import DataError
from loaders.dataset import ImageDataset
from loaders.images.boxes import short_side
from loaders.images.native import whole
from loaders.memory import SHARED, free_shared_memory
from loaders.workers import cores

T = TypeVar("T")
_SPARE = 0.9  # the part of the free memory that may be taken: workers and the trainer need some


class PackedDataset(ImageDataset):
    """Another data set's images, decoded into memory that all ranks of a node and their workers share.

    The memory has no name in the file system once every rank has it open, so that it goes with the last process,
    however that ends.

    Args:
        source: where the images come from; its pipeline and seed are used.
        pack_size: the short side in pixels that larger images are reduced to; None keeps every pixel.

    Raises:
        DataError: it does not fit, or an image cannot be read.
    """

    def __init__(self, source: ImageDataset, pack_size: int | None = None) -> None:
        super().__init__(source.pipeline, source.seed)
        self.source, self.pack_size = source, pack_size
        self.classes, self.labels_are_free = source.classes, source.labels_are_free
        shapes, self.labels = self._measure()
        self.shapes = shapes
        self.offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1) * 3)])
        self._refuse_what_does_not_fit()
        self.memory = self._shared_memory()
        self._fill()

    def __len__(self) -> int:
        return len(self.source)

    def name_of(self, index: int) -> str:
        return self.source.name_of(index)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        begin, end = self.offsets[index : index + 2]
        return self.memory[begin:end].reshape(*self.shapes[index], 3), int(self.labels[index])

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Height and width of every image as it will be packed, int64 [N, 2], and the labels, int64 [N].

        Every node packs all of it: each rank looks at its share of its node's work, and all tell each other.
        """
        mine = self._share()

        def look(index: int) -> tuple[int, int, int]:
            height, width, label = self.source.measure(index)
            return *self._packed_shape(height, width), label

        found = np.zeros((len(self), 3), np.int64)
        for start, part in _together(lambda: (mine.start, np.array(_in_threads(look, mine)).reshape(-1, 3))):
            found[start : start + len(part)] = part
        return found[:, :2], found[:, 2]

    def _packed_shape(self, height: int, width: int) -> tuple[int, int]:
        if self.pack_size is None or min(height, width) <= self.pack_size:
            return height, width
        return short_side(height, width, self.pack_size)

    def _share(self) -> range:
        """The samples that this rank of its node packs."""
        ranks, rank = dist.get_local_world_size(), dist.get_local_rank()
        return range(len(self) * rank // ranks, len(self) * (rank + 1) // ranks)

    def _refuse_what_does_not_fit(self) -> None:
        needed, free = int(self.offsets[-1]), free_shared_memory()
        # Ranks that see memory taken by their neighbours must still agree.
        fits = dist.all_gather_object(needed <= _SPARE * free)
        if all(fits):
            return
        smaller = int(np.sqrt(_SPARE * free / needed) * np.median(self.shapes.min(axis=1)))
        raise DataError(
            f"storage=packed: {len(self):,} decoded images take {needed / 1e9:,.1f} GB, and {SHARED} and the "
            f"machine's memory have {free / 1e9:,.1f} GB free. Say pack_size={max(1, smaller)} to reduce their short "
            "side, give the machine (or the container, --shm-size) more, or use storage=imagefolder."
        )

    def _shared_memory(self) -> np.ndarray:
        """The node's memory, uint8 [bytes]: made by its first rank, opened by the others, and then without a name."""
        names = dist.all_gather_object(str(SHARED / f"packed-{uuid.uuid4().hex}"))
        path = Path(names[dist.get_global_rank() - dist.get_local_rank()])
        size = max(1, int(self.offsets[-1]))
        if dist.get_local_rank() == 0:
            path.touch()
        try:
            dist.barrier()
            file = path.open("r+b")
            dist.barrier()
        finally:
            if dist.get_local_rank() == 0:
                path.unlink(missing_ok=True)  # from here on it goes with the last process that has it open

        def allocate() -> None:
            try:
                if dist.get_local_rank() == 0:
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise DataError(f"storage=packed: {SHARED} cannot give {size / 1e9:,.1f} GB ({error}).") from error

        _together(allocate)
        with file:
            return np.memmap(file, np.uint8, "r+", shape=(size,))

    def _fill(self) -> None:
        """Decode this rank's share, and wait for the others'."""

        def put(index: int) -> None:
            try:
                height, width = self.shapes[index].tolist()
                opened = self.pipeline.open(self.source.read(index)[0])
                pixels = opened.view(whole(opened.height, opened.width, height, width))
            except DataError:
                raise
            except Exception as error:
                raise self.unreadable(index, error) from error
            begin, end = self.offsets[index : index + 2]
            self.memory[begin:end] = pixels.permute(1, 2, 0).reshape(-1).numpy()

        if dist.get_global_rank() == 0:
            print(f"packing {len(self):,} images into {self.offsets[-1] / 1e9:,.2f} GB of memory", flush=True)
        _together(lambda: _in_threads(put, self._share()))


def _together(do: Callable[[], T]) -> list[T]:
    """What every rank's `do` returned, by rank.

    Raises:
        DataError: on every rank, if one failed: nobody is left waiting for it.
    """
    result, fault = None, None
    try:
        result = do()
    except DataError as error:
        fault = str(error)
    said = dist.all_gather_object((result, fault))
    faults = [fault for _, fault in said if fault]
    if faults:
        raise DataError(faults[0])
    return [cast(T, result) for result, _ in said]


def _in_threads(do: Callable[[int], T], indices: range) -> list[T]:
    """`do` of each index, on this rank's share of the cores; the first fault ends it."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            return list(pool.map(do, indices))
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
