"""From an image to a square crop, from crops to a batch, and from a batch to normalized floats.

Pixels stay uint8 until they are on the device. Boxes and antialiased resizing are those of torchvision's transforms on
PIL images; `loaders.images.decoders` lists how far each decoder's pixels may differ.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import compress

import numpy as np
import torch
from torch.utils.data import get_worker_info
from torchvision.transforms.functional import center_crop

from loaders.images import native
from loaders.images.boxes import Crop, central, draw_boxes, random_crop, short_side
from loaders.images.decoders import DECODERS, INTERPOLATIONS, check_interpolation, chosen, opener
from loaders.images.decoding import Stored
from loaders.images.native import View, whole
from loaders.images.opened import Opened
from loaders.slots import SlotBatch, Slots

CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)

PixelTransform = Callable[[torch.Tensor], torch.Tensor]
"""uint8 [3, H, W] in and out."""


class Batch(list[tuple[torch.Tensor, int]]):
    """A list of samples whose images are already one tensor, so that `collate` need not copy them.

    `images` are uint8 [B, 3, H, W], channels_last.
    """

    def __init__(self, images: torch.Tensor, labels: Sequence[int]) -> None:
        super().__init__(zip(images.unbind(), labels, strict=True))
        self.images = images


class Pipeline(ABC):
    """Turn an encoded image into a uint8 tensor [3, side, side], stored row by row with the channels last.

    Args:
        resize_size: the short side in pixels before the crop; -1: no resize.
        crop_size: the side of the result in pixels.
        decoder: as for `loaders.images.decoders.chosen`, which may raise a DataError.
        interpolation: one of `loaders.images.decoders.INTERPOLATIONS`; a DataError if it cannot be computed here.
    """

    random: bool  # whether it draws random numbers, so that each sample must be seeded
    image_transforms: Sequence[PixelTransform] = ()

    def __init__(
        self, resize_size: int, crop_size: int, decoder: str = "auto", interpolation: str = "bilinear"
    ) -> None:
        check_interpolation(interpolation)
        self.resize_size = resize_size
        self.crop_size = crop_size
        self.decoder = chosen(decoder)
        self.open = opener(self.decoder)
        row = DECODERS[self.decoder]
        self.native, self.filter = row.native, INTERPOLATIONS.index(interpolation)
        self.how = row.scaled, row.libjpeg, self.filter  # the last fields of a View
        self.threads = 1  # that decode a batch

    def __call__(self, source: Stored, size: int | None = None) -> torch.Tensor:
        """Decode, resize and crop one image to a square of `size` pixels, or `crop_size` if None."""
        return self.cut(self.open(source), size or self.crop_size)

    @property
    def batches(self) -> bool:
        """Whether `fill` can process whole batches."""
        return self.native

    def fill(self, images: torch.Tensor, sources: Sequence[Stored], seeds: Sequence[int]) -> list[int]:
        """Decode and crop many images in one call, on `threads` threads, straight into uint8 [B, side, side, 3].

        Returns:
            Indices of the images that must still be made one by one: unusual ones, and those smaller than the crop.
        """
        batch, side = native.Batch(sources), images.shape[1]
        decodable = batch.shapes.any(axis=1)
        views = np.zeros((len(sources), len(View._fields)), np.int32)
        views[decodable] = self.plan_batch(batch.shapes[decodable], side, list(compress(seeds, decodable)))
        at = View._fields.index("kept_rows")
        views[(views[:, at : at + 2] != side).any(axis=1)] = 0
        return np.flatnonzero(~batch.view(views, images.numpy(), self.threads)).tolist()

    @abstractmethod
    def plan_batch(self, shapes: np.ndarray, size: int, seeds: Sequence[int]) -> np.ndarray:
        """Return `plan` of many images, int32 [B, fields of View], each with a random generator of its seed.

        Args:
            shapes: heights and widths in pixels, int32 [B, 2].
            size: of the square, in pixels.
            seeds: one per image.
        """

    @abstractmethod
    def plan(self, height: int, width: int, size: int, generator: torch.Generator | None = None) -> View:
        """Return the view that makes the square crop of an image, or less if the image is smaller; sizes in pixels."""

    @abstractmethod
    def cut(self, image: Opened, size: int) -> torch.Tensor:
        """Crop an opened image to a square of `size` pixels."""

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels before the crop."""
        return short_side(height, width, self.resize_size) if self.resize_size > 0 else (height, width)


class TrainingPipeline(Pipeline):
    """Random crop and flip of the published recipes (He et al. 2015, as implemented in torchvision).

    Args:
        resize_size, crop_size, decoder, interpolation: as for every pipeline.
        image_transforms: transforms to apply after crop and flip.
        min_crop_area: smallest fraction of the image's area in a random crop.
        hflip: mirror an image with probability 0.5.
    """

    random = True

    def __init__(
        self,
        resize_size: int,
        crop_size: int,
        image_transforms: Sequence[PixelTransform] = (),
        min_crop_area: float = 0.08,
        hflip: bool = True,
        decoder: str = "auto",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__(resize_size, crop_size, decoder, interpolation)
        self.image_transforms = list(image_transforms)
        self.min_crop_area = min_crop_area
        self.hflip = hflip

    @property
    def batches(self) -> bool:
        """Whether `fill` can process whole batches: not with image transforms, or a resize before the crop."""
        return super().batches and not self.image_transforms and self.resize_size <= 0

    def draw(self, height: int, width: int, generator: torch.Generator | None = None) -> Crop:
        """Draw a random box and flip for an image of this size, as torchvision's RandomResizedCrop does."""
        return random_crop(height, width, self.min_crop_area, self.hflip, generator)

    def plan(self, height: int, width: int, size: int, generator: torch.Generator | None = None) -> View:
        """Return a random box, resized to the square."""
        return self._view(self.draw(height, width, generator), size)

    def plan_batch(self, shapes: np.ndarray, size: int, seeds: Sequence[int]) -> np.ndarray:
        """Return random boxes, resized to the square."""
        boxes = draw_boxes(shapes[:, 0], shapes[:, 1], seeds, self.min_crop_area, self.hflip)
        views = np.tile(np.array(self._view(Crop(0, 0, 0, 0, False), size), np.int32), (len(shapes), 1))
        views[:, :4], views[:, View._fields.index("flip")] = boxes[:, :4], boxes[:, 4]
        return views

    def _view(self, crop: Crop, size: int) -> View:
        """Return the view that resizes a crop to the square."""
        top, left, height, width, flip = crop
        return View(top, left, height, width, size, size, 0, 0, size, size, flip, *self.how)

    def cut(self, image: Opened, size: int) -> torch.Tensor:
        """Crop a random box, resize it to `size`, perhaps mirror it, and apply the image transforms."""
        if self.resize_size > 0:
            rows, columns = self.resized_shape(image.height, image.width)
            reduced = image.view(whole(image.height, image.width, rows, columns, self.filter))
            image = self.open(reduced.permute(1, 2, 0).numpy())
        square = image.view(self.plan(image.height, image.width, size))
        for transform in self.image_transforms:
            square = transform(square)
        return square


class EvaluationPipeline(Pipeline):
    """Resize of the short side, then the central square (smaller images are padded with black).

    Args:
        resize_size, crop_size, decoder, interpolation: as for every pipeline.
        crop_ratio: side of the central square as a fraction of the short side, rounded down to a pixel; the square is
            resized to the crop size, as in FFCV. None: `resize_size` decides.
    """

    random = False

    def __init__(
        self,
        resize_size: int,
        crop_size: int,
        decoder: str = "auto",
        interpolation: str = "bilinear",
        crop_ratio: float | None = None,
    ) -> None:
        super().__init__(resize_size, crop_size, decoder, interpolation)
        self.crop_ratio = crop_ratio

    def plan(self, height: int, width: int, size: int, generator: torch.Generator | None = None) -> View:  # noqa: ARG002
        """Return the central square, or its intersection with a smaller image."""
        if self.crop_ratio is not None:
            side = max(1, int(self.crop_ratio * min(height, width)))
            box = (height - side) // 2, (width - side) // 2, side, side
            return View(*box, size, size, 0, 0, size, size, False, *self.how)
        rows, columns = self.resized_shape(height, width)
        square = central(rows, columns, size)
        kept = max(0, square.top), max(0, square.left), min(size, rows), min(size, columns)
        return View(0, 0, height, width, rows, columns, *kept, False, *self.how)

    def plan_batch(self, shapes: np.ndarray, size: int, seeds: Sequence[int]) -> np.ndarray:  # noqa: ARG002
        """Return the central squares."""
        views = [self.plan(height, width, size) for height, width in shapes.tolist()]
        return np.array(views, np.int32).reshape(-1, len(View._fields))

    def cut(self, image: Opened, size: int) -> torch.Tensor:
        """Crop the central square."""
        return center_crop(image.view(self.plan(image.height, image.width, size)), [size, size])


def collate(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor] | SlotBatch:
    """Stack samples to (uint8 [B, 3, H, W] in channels_last memory format, int64 [B]).

    Images are stored as [B, H, W, 3], the layout that channels_last convolutions need, so that nothing is transposed.
    A worker puts them in shared memory and sends only a reference.
    """
    labels = np.array([label for _, label in samples], np.int64)
    if isinstance(samples, Batch):
        images = samples.images.permute(0, 2, 3, 1)
    else:
        squares = [image.permute(1, 2, 0) for image, _ in samples]
        images = torch.stack(squares, out=empty_batch((len(squares), *squares[0].shape)))
    slots = _slots()
    reference = slots.sent(images.numpy(), labels) if slots else None
    return reference or (images.permute(0, 3, 1, 2), torch.from_numpy(labels))


def empty_batch(shape: tuple[int, ...]) -> torch.Tensor:
    """Allocate uint8 of this shape; in a worker, in shared memory, so that nothing is copied when it is sent."""
    worker = get_worker_info()
    if worker is None:
        return torch.empty(shape, dtype=torch.uint8)
    slots = _slots()
    if slots and (room := slots.room(worker.id, shape)) is not None:
        return torch.from_numpy(room)
    room = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's default_collate does
    return torch.empty(0, dtype=torch.uint8).set_(room).view(shape)


def _slots() -> Slots | None:
    """Return the slots of this worker's loader; None if it has none, or this is not a worker."""
    worker = get_worker_info()
    return getattr(worker.dataset, "slots", None) if worker else None


class NormalizationFn:
    """Microbatch transform of a DataSpec: uint8 images (0..255) to floats of zero mean and unit variance.

    Runs on the device, because copying bytes there is a quarter of the traffic. Keeps channels_last. `mean` and `std`
    are per channel, for images in 0..1.
    """

    def __init__(self, mean: Sequence[float] = CHANNEL_MEAN, std: Sequence[float] = CHANNEL_STD) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._constants: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batch
        device = images.device
        if device not in self._constants:
            mean, std = (torch.tensor(values, dtype=torch.float32) * 255 for values in (self.mean, self.std))
            self._constants[device] = mean.view(1, -1, 1, 1).to(device), std.view(1, -1, 1, 1).to(device)
        mean, std = self._constants[device]
        return (images - mean).div_(std), labels

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_constants": {}}  # device tensors must not be pickled
