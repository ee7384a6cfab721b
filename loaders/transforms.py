"""From a picture to the square that the network sees, from squares to a batch, and from a batch to normalised floats.

Pixels stay uint8 until they are on the device. Boxes are drawn as torchvision draws them, and the crop is resized with
torch's antialiased filter on bytes: at most 1 of 255 from what torchvision's transforms make of the same box with PIL.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import default_collate
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import center_crop

from loaders.decoding import Source, decode

CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)
ASPECT_RATIO = (3 / 4, 4 / 3)  # of a random crop, width over height

PixelTransform = Callable[[torch.Tensor], torch.Tensor]
"""uint8 [3, H, W] in and out."""


class Crop(NamedTuple):
    """A box in pixels of the (resized) picture, and whether to mirror what it shows."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def resized(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A uint8 [3, H, W] picture at another size, bilinear and antialiased, as PIL's reduces it."""
    if pixels.shape[1:] == (height, width):
        return pixels
    # Not torchvision's v2.Resize: on processors with AVX-512 it takes a detour by floats (vision issue 8374).
    return F.interpolate(pixels[None], (height, width), mode="bilinear", antialias=True)[0]


def short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of a picture whose short side becomes `size` pixels; the long side is cut to whole pixels."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


class Pipeline(ABC):
    """An encoded picture to a uint8 tensor [3, side, side], stored row by row with the channels last.

    Args:
        resize_size: the short side in pixels before the crop; -1 leaves the picture as it is.
        crop_size: the side of the result in pixels.
    """

    random: bool
    """Whether random numbers are drawn (then each sample needs its seed)."""

    def __init__(self, resize_size: int, crop_size: int) -> None:
        self.resize_size = resize_size
        self.crop_size = crop_size

    def __call__(self, source: Source, size: int | None = None) -> torch.Tensor:
        """Decode, resize and crop one picture.

        Args:
            source: as `loaders.decoding.decode` takes it.
            size: the side of the result in pixels; `crop_size` if None.
        """
        pixels = decode(source)
        if self.resize_size > 0:
            height, width = pixels.shape[1:]
            pixels = resized(pixels, *short_side(height, width, self.resize_size))
        return self.cut(pixels, size or self.crop_size)

    @abstractmethod
    def cut(self, pixels: torch.Tensor, size: int) -> torch.Tensor:
        """The square of `size` pixels out of a decoded picture."""


class TrainingPipeline(Pipeline):
    """Random crop and flip of the published recipes (reference: He et al. 2015, as torchvision implements it).

    Args:
        resize_size: the short side in pixels before the crop; -1 leaves the picture as it is.
        crop_size: the side of the result in pixels.
        image_transforms: what follows crop and flip.
        min_crop_area: the smallest part of the picture's area that a random crop may show.
        hflip: mirror every other picture.
    """

    random = True

    def __init__(
        self,
        resize_size: int,
        crop_size: int,
        image_transforms: Sequence[PixelTransform] = (),
        min_crop_area: float = 0.08,
        hflip: bool = True,
    ) -> None:
        super().__init__(resize_size, crop_size)
        self.image_transforms = list(image_transforms)
        self.min_crop_area = min_crop_area
        self.hflip = hflip

    def draw(self, height: int, width: int) -> Crop:
        """The next random box in a picture of this size, from torch's global generator."""
        shape = torch.empty(1).expand(1, height, width)  # torchvision asks for a picture, and looks at its size only
        box = RandomResizedCrop.get_params(shape, [self.min_crop_area, 1.0], list(ASPECT_RATIO))
        top, left, height, width = box
        return Crop(top, left, height, width, flip=self.hflip and bool(torch.rand(1) < 0.5))

    def cut(self, pixels: torch.Tensor, size: int) -> torch.Tensor:
        """A random box of the picture, resized to `size`, mirrored or not, and transformed further."""
        height, width = pixels.shape[1:]
        crop = self.draw(height, width)
        box = pixels[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        square = resized(box, size, size)
        square = square.flip(-1) if crop.flip else square
        for transform in self.image_transforms:
            square = transform(square)
        return square


class EvaluationPipeline(Pipeline):
    """Resize of the short side, then the central square (smaller pictures are padded with black)."""

    random = False

    def cut(self, pixels: torch.Tensor, size: int) -> torch.Tensor:
        """The central square of the picture."""
        return center_crop(pixels, [size, size])


def build_pipeline(
    is_train: bool, resize_size: int, crop_size: int, steps: Sequence[PixelTransform], min_crop_area: float, hflip: bool
) -> Pipeline:
    """Training's pipeline, or evaluation's, for which the last three mean nothing."""
    if is_train:
        return TrainingPipeline(resize_size, crop_size, steps, min_crop_area, hflip)
    return EvaluationPipeline(resize_size, crop_size)


def collate(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack samples to (uint8 [B, 3, H, W] in channels_last memory format, int64 [B]).

    The pictures are stacked as [B, H, W, 3], which is how they lie in memory: no transposing copy, and the model's
    channels_last convolutions get what they want. In a worker, torch stacks straight into shared memory.
    """
    images = default_collate([image.permute(1, 2, 0) for image, _ in samples])
    return images.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples], dtype=torch.int64)


class NormalizationFn:
    """A DataSpec's microbatch transform: uint8 pictures (0..255) to floats of zero mean and unit variance.

    Runs after the copy to the device, because bytes are a quarter of the traffic. Keeps channels_last.

    Args:
        mean: per channel, for pictures in 0..1.
        std: per channel, for pictures in 0..1.
    """

    def __init__(self, mean: Sequence[float] = CHANNEL_MEAN, std: Sequence[float] = CHANNEL_STD) -> None:
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._constants: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batch
        if images.device not in self._constants:
            self._constants[images.device] = (
                self._per_channel(self.mean, images.device),
                self._per_channel(self.std, images.device),
            )
        mean, std = self._constants[images.device]
        return (images - mean).div_(std), labels

    @staticmethod
    def _per_channel(values: Sequence[float], device: torch.device) -> torch.Tensor:
        return (torch.tensor(values, dtype=torch.float32) * 255).view(1, -1, 1, 1).to(device)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_constants": {}}  # a tensor on a device has no business in a pickle
