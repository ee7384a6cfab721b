"""From an encoded picture to a uint8 tensor, from tensors to a batch, and from a batch to normalised floats.

This is the one place that decodes: a faster decoder replaces `Pipeline.__call__` and nothing else.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import CenterCrop, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop, Resize

CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)

Picture = Image.Image
PictureTransform = Callable[[Picture], Picture]


def open_picture(source: bytes | Picture) -> Picture:
    """Decode one picture to RGB.

    Args:
        source: an encoded file's bytes, or a picture already decoded.

    Raises:
        Exception: whatever PIL raises for bytes that are no picture, or end too early.
    """
    picture = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # straight to RGB, PIL warns of the transparency that it drops
    return picture.convert("RGB")


class Pipeline:
    """Encoded bytes -> uint8 tensor [3, H, W], stored row by row with the channels last.

    Args:
        steps: PIL -> PIL, in order.
        random: whether any step draws random numbers (then each sample needs its seed).
    """

    def __init__(self, steps: Sequence[PictureTransform], random: bool) -> None:
        self.steps = list(steps)
        self.random = random

    def __call__(self, source: bytes | Picture) -> torch.Tensor:
        picture = open_picture(source)
        for step in self.steps:
            picture = step(picture)
        return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)


def training_pipeline(
    resize_size: int,
    crop_size: int,
    image_transforms: Sequence[PictureTransform] = (),
    min_crop_area: float = 0.08,
    hflip: bool = True,
) -> Pipeline:
    """Random crop and flip of the published recipes (reference: He et al. 2015, as torchvision implements it).

    Args:
        resize_size: the short side in pixels before the crop; -1 leaves the picture as it is.
        crop_size: the side of the square result in pixels.
        image_transforms: what follows crop and flip, PIL -> PIL.
        min_crop_area: the smallest part of the picture's area that a random crop may show.
        hflip: mirror every other picture.
    """
    steps: list[PictureTransform] = [Resize(resize_size)] if resize_size > 0 else []
    crop = RandomResizedCrop(
        crop_size, scale=(min_crop_area, 1.0), ratio=(3 / 4, 4 / 3), interpolation=InterpolationMode.BILINEAR
    )
    flip = [RandomHorizontalFlip()] if hflip else []
    return Pipeline([*steps, crop, *flip, *image_transforms], random=True)


def evaluation_pipeline(resize_size: int, crop_size: int) -> Pipeline:
    """Resize of the short side, then the central square.

    Args:
        resize_size: the short side in pixels; -1 leaves the picture as it is.
        crop_size: the side of the square result in pixels (smaller pictures are padded with black).
    """
    steps: list[PictureTransform] = [Resize(resize_size)] if resize_size > 0 else []
    return Pipeline([*steps, CenterCrop(crop_size)], random=False)


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
