"""A whole data set decoded in memory, once per node: no JPEG is decoded twice, at 3 bytes a pixel."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from composer.utils import dist

from config.errors import DataError
from loaders.dataset import PictureDataset
from loaders.decoding import decode
from loaders.memory import SHARED, free_shared_memory
from loaders.transforms import resized, short_side

_SPARE = 0.9  # the part of the free memory that may be taken: workers and the trainer need some


class PackedDataset(PictureDataset):
    """Another data set's pictures, decoded into memory that all ranks of a node and their workers share.

    The memory has no name in the file system once every rank has it open, so that it goes with the last process,
    however that ends.

    Args:
        source: where the pictures come from; its pipeline and seed are used.
        pack_size: the short side in pixels that larger pictures are reduced to; None keeps every pixel.

    Raises:
        DataError: it does not fit, or a picture cannot be read.
    """

    def __init__(self, source: PictureDataset, pack_size: int | None = None) -> None:
        super().__init__(source.pipeline, source.seed)
        self.source, self.pack_size = source, pack_size
        self.classes = source.classes
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
        """Height and width of every picture as it will be packed, int64 [N, 2], and the labels, int64 [N]."""
        mine = self._share()

        def look(index: int) -> tuple[int, int, int]:
            source, label = self.source.read(index)
            return *self._packed_shape(*self._size(index, source)), label

        found = np.zeros((len(self), 3), np.int64)
        with ThreadPoolExecutor(_threads()) as pool:
            found[mine.start : mine.stop] = list(pool.map(look, mine)) or np.zeros((0, 3))
        # Every node packs all of it: each rank looks at its node's share, the ranks of the first node tell all.
        parts = dist.all_gather_object((mine.start, mine.stop, found[mine.start : mine.stop]))
        for start, stop, part in parts:
            found[start:stop] = part
        return found[:, :2], found[:, 2]

    def _size(self, index: int, source: object) -> tuple[int, int]:
        """Height and width of a stored picture, from its first bytes."""
        import io

        from PIL import Image

        if isinstance(source, np.ndarray):
            return source.shape[0], source.shape[1]
        try:
            picture = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
            return picture.height, picture.width  # type: ignore[attr-defined]
        except Exception as error:
            raise self.unreadable(index, error) from error

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
            f"storage=packed: {len(self):,} decoded pictures take {needed / 1e9:,.1f} GB, and {SHARED} and the "
            f"machine's memory have {free / 1e9:,.1f} GB free. Say pack_size={max(1, smaller)} to reduce their short "
            "side, give the machine (or the container, --shm-size) more, or use storage=imagefolder."
        )

    def _shared_memory(self) -> np.ndarray:
        """The node's memory, uint8 [bytes]: made by its first rank, opened by the others, and then without a name."""
        names = dist.all_gather_object(str(SHARED / f"packed-{uuid.uuid4().hex}"))
        path = Path(names[dist.get_global_rank() - dist.get_local_rank()])
        is_first = dist.get_local_rank() == 0
        try:
            if is_first:
                with path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, max(1, int(self.offsets[-1])))
            dist.barrier()
            return np.memmap(path, np.uint8, "r+")
        finally:
            dist.barrier()
            if is_first:
                path.unlink(missing_ok=True)

    def _fill(self) -> None:
        """Decode this rank's share, and wait for the others'."""

        def put(index: int) -> None:
            try:
                pixels = decode(self.source.read(index)[0])
                pixels = resized(pixels, *self.shapes[index].tolist())
            except DataError:
                raise
            except Exception as error:
                raise self.unreadable(index, error) from error
            begin, end = self.offsets[index : index + 2]
            self.memory[begin:end] = pixels.permute(1, 2, 0).reshape(-1).numpy()

        fault: DataError | None = None
        with ThreadPoolExecutor(_threads()) as pool:
            try:
                for _ in pool.map(put, self._share()):
                    pass
            except DataError as error:
                pool.shutdown(cancel_futures=True)
                fault = error
        faults = [text for text in dist.all_gather_object(fault and str(fault)) if text]
        if faults:
            raise fault or DataError(faults[0])


def _threads() -> int:
    """This rank's share of the cores."""
    from loaders.workers import default_num_workers

    return default_num_workers()
