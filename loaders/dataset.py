"""What every kind of storage has in common: seeded access by (epoch, index), and an exact place to resume from."""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from common.errors import DataError
from loaders.errors import unreadable
from loaders.images.decoding import Source, shape_of
from loaders.images.transforms import Batch, Pipeline, empty_batch
from loaders.seeding import sample_seed, seeded

AT_ONCE = 32  # images a thread whose files are held in memory together

Key = int | tuple[int, int] | tuple[int, int, int]


class ImageDataset(ABC, Dataset[tuple[torch.Tensor, int]]):
    """Images with labels, read one at a time (map-style).

    A key is an index, or (epoch, index) or (epoch, index, size) as EpochSampler yields them: epoch and image size
    reach persistent workers with the key, for exactly the batch that they are meant for.

    Args:
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed, of which order and augmentation are functions.
    """

    #: Sorted class names, or None where the storage does not know them.
    classes: list[str] | None = None

    #: Whether a label may be any number: it is stored with each image, not made from the class names.
    labels_are_free = True

    #: Which of two orders `epoch_order` gives; a place in the one means nothing in the other.
    order = "over all"

    #: Whether images come from elsewhere, so that an epoch may have to wait for them.
    fetches = False

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self.seed = seed
        self.epoch = 0
        self._resume: tuple[int, int] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are, over all ranks."""

    @abstractmethod
    def read(self, index: int) -> tuple[Source, int]:
        """One image as stored, and its label.

        Raises:
            DataError: the image cannot be fetched.
        """

    def measure(self, index: int) -> tuple[int, int, int]:
        """Height and width of an image in pixels, without decoding it, and its label.

        Raises:
            DataError: it cannot be fetched, or is no image.
        """
        source, label = self.read(index)
        try:
            return *shape_of(source), label
        except Exception as error:
            raise self.unreadable(index, error) from error

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Where an image is stored, for messages."""

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        place = parts(key)
        source, label = self.read(place[1])
        return self._image(source, *place), label

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[torch.Tensor, int]]:
        """Many images (torch's loader calls this): a whole batch at once, where the pipeline can."""
        places = [parts(key) for key in keys]
        sizes = {size for _, _, size in places}
        if not self.pipeline.batches or len(sizes) != 1:
            return [self[key] for key in keys]
        side = sizes.pop() or self.pipeline.crop_size
        images, labels = empty_batch((len(places), side, side, 3)), []
        step = AT_ONCE * self.pipeline.threads
        for start in range(0, len(places), step):
            part, out = places[start : start + step], images[start : start + step]
            sources, of_part = zip(*(self.read(index) for _, index, _ in part), strict=True)
            labels += of_part
            for n in self.pipeline.fill(out, sources, [sample_seed(self.seed, *place[:2]) for place in part]):
                out[n] = self._image(sources[n], *part[n]).permute(1, 2, 0)
        return Batch(images.permute(0, 3, 1, 2), labels)

    def _image(self, source: Source, epoch: int, index: int, size: int | None) -> torch.Tensor:
        """What the pipeline makes of one image, with the random numbers of its epoch.

        Raises:
            DataError: it cannot be decoded.
        """
        sample_rng: AbstractContextManager[None] = contextlib.nullcontext()
        if self.pipeline.random:
            sample_rng = seeded(self.seed, epoch, index)
        try:
            with sample_rng:
                return self.pipeline(source, size)
        except Exception as error:
            raise self.unreadable(index, error) from error

    def unreadable(self, index: int, error: Exception) -> DataError:
        """The sentence for an image that could be fetched but not decoded."""
        return DataError(
            f"{self.name_of(index)}: {unreadable(error)}. "
            "Replace or delete it; `python -m tools.verify` finds all of its kind."
        )

    def epoch_order(self, generator: np.random.Generator) -> np.ndarray:
        """The order of one shuffled epoch, int64 [len(self)]: here, every order equally likely."""
        return generator.permutation(len(self))

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """Fetch ahead of `order` while the context is open; the result is told each position that has been reached."""
        return contextlib.nullcontext(lambda _position: None)

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Where the run is, for a checkpoint (Composer calls this).

        Args:
            num_samples: samples of this epoch that all ranks together have trained on.
            from_beginning: whether `num_samples` counts from the epoch's start; Composer's always does.
        """
        if not from_beginning:
            raise NotImplementedError("samples are counted from the beginning of the epoch")
        place = {"epoch": self.epoch, "sample_in_epoch": int(num_samples)}
        return {**place, "size": len(self), "order": self.order, "classes": self.classes}

    def load_state_dict(self, obj: dict[str, Any] | None) -> None:
        """Go on where a checkpoint stopped: the next iteration of that epoch starts at that sample.

        Args:
            obj: what `state_dict` returned; None (a checkpoint of another program's data set) starts at an epoch.

        Raises:
            DataError: it was a data set of another size, so that the place means nothing here.
        """
        if not obj:
            return
        place = int(obj.get("sample_in_epoch", 0))
        size = int(obj.get("size", len(self)))
        if place and size != len(self):
            raise DataError(
                f"the checkpoint stopped after {place} of {size} images, but this data set has {len(self)}: "
                "go on with the data set that it was trained on, or start from its weights alone."
            )
        if place and obj.get("order", self.order) != self.order:
            raise DataError(
                f"the checkpoint stopped in mid-epoch, of images shuffled {obj['order']}, but this kind of storage "
                f"shuffles them {self.order}: go on with the kind that it was trained on."
            )
        self._resume = (int(obj.get("epoch", 0)), place)

    def take_resume(self, epoch: int) -> int:
        """How many samples of `epoch` are done already; asked once, because the next time the epoch is full."""
        if self._resume is None or self._resume[0] != epoch:
            return 0
        place, self._resume = self._resume[1], None
        return place


def parts(key: Key) -> tuple[int, int, int | None]:
    """Epoch, index and size of a key."""
    epoch, index, *size = key if isinstance(key, tuple) else (0, int(key))
    return epoch, index, size[0] if size else None


def class_list(path: Path, place: str | Path) -> list[str]:
    """The class names in a classes.json: a list, by label.

    Args:
        path: the file.
        place: where it is stored, for messages.

    Raises:
        DataError: it is no such list.
    """
    try:
        names = json.loads(path.read_text())
        if not isinstance(names, list):
            raise TypeError(f"it holds a {type(names).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place}: is no list of class names ({type(error).__name__}: {error}). "
            "Copy it again from where the data set was converted, or remove it."
        ) from error
    return [str(name) for name in names]
