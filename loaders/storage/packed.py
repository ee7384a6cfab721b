"""A whole data set decoded into memory once per node, at 3 bytes per pixel."""

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
_USABLE = 0.9  # fraction of the free memory to use at most; workers and the trainer need the rest


class PackedDataset(ImageDataset):
    """The images of `source`, decoded into memory shared by all ranks of a node and their workers.

    Larger images are reduced to a short side of `pack_size` pixels, unless it is None.

    Raises:
        DataError: the images do not fit, or one cannot be read.
    """

    def __init__(self, source: ImageDataset, pack_size: int | None = None) -> None:
        super().__init__(source.pipeline, source.seed)
        self.source, self.pack_size = source, pack_size
        self.classes, self.labels_are_free = source.classes, source.labels_are_free
        self.shapes, self.labels = self._measure()
        self.offsets = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1) * 3)])
        self._check_room()
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
        """Return height and width of every packed image, int64 [N, 2], and the labels, int64 [N].

        Each rank measures its share of its node's images, and all ranks exchange the results.
        """
        mine = self._share()

        def measure(index: int) -> tuple[int, int, int]:
            height, width, label = self.source.measure(index)
            if self.pack_size is not None and min(height, width) > self.pack_size:
                height, width = short_side(height, width, self.pack_size)
            return height, width, label

        rows = np.zeros((len(self), 3), np.int64)
        for start, chunk in _together(lambda: (mine.start, np.array(_in_threads(measure, mine)).reshape(-1, 3))):
            rows[start : start + len(chunk)] = chunk
        return rows[:, :2], rows[:, 2]

    def _share(self) -> range:
        """Return the indices of the samples that this rank packs on its node."""
        ranks, rank = dist.get_local_world_size(), dist.get_local_rank()
        return range(len(self) * rank // ranks, len(self) * (rank + 1) // ranks)

    def _check_room(self) -> None:
        needed, free = int(self.offsets[-1]), free_shared_memory()
        if all(dist.all_gather_object(needed <= _USABLE * free)):  # ranks must agree, even if some see less free memory
            return
        smaller = int(np.sqrt(_USABLE * free / needed) * np.median(self.shapes.min(axis=1)))
        raise DataError(
            f"storage=packed: {len(self):,} decoded images take {needed / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB "
            f"of {SHARED} and the machine's memory are free. Set pack_size={max(1, smaller)} to reduce their short "
            "side, give the machine (or the container, --shm-size) more, or use storage=imagefolder."
        )

    def _shared_memory(self) -> np.ndarray:
        """Return the node's shared memory, uint8 [bytes], made by its first rank and opened by the others."""
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
                path.unlink(missing_ok=True)  # without a name, it is freed with the last process, however that ends

        def allocate() -> None:
            try:
                if dist.get_local_rank() == 0:
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise DataError(f"storage=packed: {SHARED} has no room for {size / 1e9:,.1f} GB ({error}).") from error

        _together(allocate)
        with file:
            return np.memmap(file, np.uint8, "r+", shape=(size,))

    def _fill(self) -> None:
        """Decode this rank's share, and wait for the other ranks."""

        def put(index: int) -> None:
            try:
                height, width = self.shapes[index].tolist()
                opened = self.pipeline.open(self.source.read(index)[0])
                pixels = opened.view(whole(opened.height, opened.width, height, width, self.pipeline.filter))
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
    """Return the results of `do` on all ranks, by rank.

    Raises:
        DataError: on every rank if one fails, so that none waits for it.
    """
    result, fault = None, None
    try:
        result = do()
    except DataError as error:
        fault = str(error)
    outcomes = dist.all_gather_object((result, fault))
    if faults := [fault for _, fault in outcomes if fault]:
        raise DataError(faults[0])
    return [cast(T, result) for result, _ in outcomes]


def _in_threads(do: Callable[[int], T], indices: range) -> list[T]:
    """Call `do` for each index on this rank's share of the cores, up to the first error."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            return list(pool.map(do, indices))
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
