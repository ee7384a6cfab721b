"""Base class of every storage kind: seeded access by (epoch, index), and an exact position to resume from."""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from common.errors import DataError
from loaders.errors import unreadable
from loaders.images.decoding import Source, Stored, shape_of
from loaders.images.transforms import Batch, Pipeline, empty_batch
from loaders.seeding import sample_seed, seeded

READ_AHEAD = 32  # encoded images per thread that are in memory at a time

Key = int | tuple[int, int] | tuple[int, int, int | None] | tuple[int, int, int | None, int]
ROUNDED_TO = 256  # an epoch of repeated images is cut to a multiple of it, as in DeiT, timm and torchvision


class Sample(NamedTuple):
    """A key, spelled out."""

    epoch: int
    image: int  # its index in the data set
    size: int | None = None  # of the square image, in pixels; None: the pipeline's
    copy: int = 0  # which of an image's repetitions in the epoch


class ImageDataset(ABC, Dataset[tuple[torch.Tensor, int]]):
    """Map-style data set of labeled images.

    A key is an index, or (epoch, index), (epoch, index, size) or a whole Sample from EpochSampler. Epoch and image size
    travel in the key because that is how persistent workers get them for exactly the right batch.

    Args:
        pipeline: bytes -> uint8 tensor.
        seed: the run's seed, which determines order and augmentation.
    """

    classes: list[str] | None = None  # by label; None if the storage does not record them
    class_names: list[str] | None = None  # what people call these; see loaders.class_names
    labels_are_free = True  # whether labels may be any number, instead of following from the class names
    order = "over all"  # how `epoch_order` shuffles; a position in one kind of order means nothing in another
    repeats = 1  # how often an epoch shows each of its images; see `epoch_size`
    fetches = False  # whether images are downloaded during the epoch, which may have to wait for them

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self.seed = seed
        self.epoch = 0
        self._resume: tuple[int, int] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of images over all ranks."""

    @abstractmethod
    def read(self, index: int) -> tuple[Source, int]:
        """Return one image as stored, and its label; raises a DataError if the image cannot be fetched."""

    def borrow(self, index: int) -> tuple[Stored, int]:
        """Return one image as `read` does, for a native decoder at once: perhaps not copied, or with its seek table."""
        return self.read(index)

    def measure(self, index: int) -> tuple[int, int, int]:
        """Return height and width of an image in pixels, without decoding it, and its label; raises as `read`."""
        source, label = self.read(index)
        try:
            return *shape_of(source), label
        except Exception as error:
            raise self.unreadable(index, error) from error

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Return where an image is stored, for messages."""

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        sample = split_key(key)
        source, label = (self.borrow if self.pipeline.native else self.read)(sample.image)
        return self._image(source, sample), label

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[torch.Tensor, int]]:
        """Return many images (called by torch's loader): a whole batch at once if the pipeline supports it."""
        samples = [split_key(key) for key in keys]
        sizes = {sample.size for sample in samples}
        if not self.pipeline.batches or len(sizes) != 1:
            return [self[key] for key in keys]
        side = sizes.pop() or self.pipeline.crop_size
        images, labels = empty_batch((len(samples), side, side, 3)), []
        step = READ_AHEAD * self.pipeline.threads
        for start in range(0, len(samples), step):
            chunk, out = samples[start : start + step], images[start : start + step]
            sources, chunk_labels = zip(*(self.borrow(sample.image) for sample in chunk), strict=True)
            labels += chunk_labels
            seeds = [sample_seed(self.seed, sample.epoch, sample.image, sample.copy) for sample in chunk]
            for n in self.pipeline.fill(out, sources, seeds):
                out[n] = self._image(sources[n], chunk[n]).permute(1, 2, 0)
        return Batch(images.permute(0, 3, 1, 2), labels)

    def _image(self, source: Stored, sample: Sample) -> torch.Tensor:
        """Run the pipeline on one image, with that sample's random numbers; raises a DataError as `unreadable`."""
        epoch, index, size, copy = sample
        try:
            with seeded(self.seed, epoch, index, copy) if self.pipeline.random else contextlib.nullcontext():
                return self.pipeline(source, size)
        except Exception as error:
            raise self.unreadable(index, error) from error

    @property
    def stored_bytes(self) -> int:
        """Bytes of all images as stored, for progress bars: known, estimated, or 0 where neither is quick."""
        return 0

    def remark(self) -> str | None:
        """Return what a run should say about the data before it starts; None for nothing."""
        return None

    def unreadable(self, index: int, error: Exception) -> DataError:
        """Return the error for an image that was fetched but cannot be decoded."""
        return DataError(
            f"{self.name_of(index)}: {unreadable(error)}. "
            "Replace or delete it; `python -m tools.verify` finds every such image."
        )

    @property
    def epoch_size(self) -> int:
        """Number of samples in an epoch: about as many if images are repeated, of fewer images then."""
        return len(self) if self.repeats == 1 else len(self) // ROUNDED_TO * ROUNDED_TO or len(self)

    def epoch_order(self, generator: np.random.Generator) -> np.ndarray:
        """Return the order of one shuffled epoch, int64 [len(self)]: here a uniform permutation."""
        return generator.permutation(len(self))

    def prefetch(self, order: np.ndarray) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """Fetch samples ahead of use while the context is open; call the result with each position reached."""
        return contextlib.nullcontext(lambda _position: None)

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Return the run's position for a checkpoint, after `num_samples` samples of this epoch on all ranks together.

        Called by Composer, which always counts `from_beginning` of the epoch.
        """
        if not from_beginning:
            raise NotImplementedError("samples are counted from the start of the epoch")
        position = {"epoch": self.epoch, "sample_in_epoch": int(num_samples)}
        return position | {"size": len(self), "repeats": self.repeats, "order": self.order, "classes": self.classes}

    def load_state_dict(self, obj: dict[str, Any] | None) -> None:
        """Resume from a checkpoint's `state_dict`: the next iteration of its epoch starts at its sample.

        Raises:
            DataError: the data set had another size or order, so the position means nothing here.
        """
        if not obj:  # another program's checkpoint, which starts at an epoch
            return
        position, size = int(obj.get("sample_in_epoch", 0)), int(obj.get("size", len(self)))
        if position and size != len(self):
            raise DataError(
                f"the checkpoint stopped after {position} of {size} images, but this data set has {len(self)}: "
                "resume with the data set it was trained on, or start from its weights alone."
            )
        if position and (repeats := obj.get("repeats", 1)) != self.repeats:
            raise DataError(
                f"the checkpoint stopped mid-epoch with each image shown {repeats} times, but this run shows it "
                f"{self.repeats} times: resume with train_dataset.repeats={repeats}, or start from its weights alone."
            )
        if position and obj.get("order", self.order) != self.order:
            raise DataError(
                f"the checkpoint stopped mid-epoch with images shuffled {obj['order']}, but this kind of storage "
                f"shuffles them {self.order}: resume with the kind it was trained on."
            )
        self._resume = (int(obj.get("epoch", 0)), position)

    def take_resume(self, epoch: int) -> int:
        """Return how many samples of `epoch` are done, once: a second pass over the same epoch is a full one."""
        if self._resume is None or self._resume[0] != epoch:
            return 0
        position, self._resume = self._resume[1], None
        return position


def split_key(key: Key) -> Sample:
    """Spell out a key."""
    return Sample(*key) if isinstance(key, tuple) else Sample(0, int(key))


def class_list(data: bytes, place: str | Path) -> list[str]:
    """Parse the class names, by label, of the classes.json at `place`; raises a DataError if it is not a list."""
    try:
        names = json.loads(data)
        if not isinstance(names, list):
            raise TypeError(f"it holds a {type(names).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place}: is not a list of class names ({type(error).__name__}: {error}). "
            "Copy it again from where the data set was converted, or remove it."
        ) from error
    return [str(name) for name in names]
