"""Images opened by a decoder (our own C, torchvision or PIL), which return views: resized, cropped, mirrored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from loaders.images import native
from loaders.images.decoders import INTERPOLATIONS
from loaders.images.decoding import Source, Stored, decode, most_pixels, open_image
from loaders.images.native import Encoded, View

AREA = INTERPOLATIONS.index("area")


class Opened(ABC):
    """An image of known height and width in pixels, which may not be decoded yet."""

    DECODERS: ClassVar[Mapping[str, Mapping[str, str | bool]]] = {}
    """Decoders that open images with this class: name -> fields of loaders.images.decoders.Decoder. A literal."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def view(self, view: View) -> torch.Tensor:
        """Return a view as uint8 [3, kept_rows, kept_columns], stored row by row with the channels last.

        Raises:
            Exception: a ValueError for too many pixels, or whatever PIL raises for a damaged image.
        """
        if view.kept_rows * view.kept_columns > most_pixels():
            raise ValueError(f"too thin: it would be resized to {view.columns} x {view.rows} px")
        return self._view(view)

    @abstractmethod
    def _view(self, view: View) -> torch.Tensor: ...


def resized(pixels: torch.Tensor, height: int, width: int, mode: str = "bilinear") -> torch.Tensor:
    """Resize a uint8 [3, H, W] image, bilinear or bicubic and antialiased, as PIL does."""
    if pixels.shape[1:] == (height, width):
        return pixels
    # Not torchvision's v2.Resize, which converts to floats on processors with AVX-512 (vision issue 8374).
    return F.interpolate(pixels[None], (height, width), mode=mode, antialias=True)[0]


def needs_native(view: View) -> bool:
    """Whether only our own C can make a view: by the area filter, or of a thin image, resized to too many pixels.

    For example, an image of 1 x 60000 px becomes 256 x 15,360,000 px if its short side is resized to 256. torch and PIL
    resize the whole image before they crop; our own C computes only the kept part.

    Raises:
        ValueError: an image is thin, and the native library is not built.
    """
    if view.filter == AREA:
        return True
    if view.rows * view.columns <= most_pixels():
        return False
    if not native.available():
        size = f"{view.columns} x {view.rows} px"
        raise ValueError(f"too thin: it is resized to {size} before the crop; to crop first: {native.HOW_TO_BUILD}")
    return True


def cut_out(pixels: np.ndarray, view: View) -> torch.Tensor:
    """Return a view of pixels, uint8 [H, W, 3], computing only the kept part."""
    return torch.from_numpy(native.view_pixels(pixels, view)).permute(2, 0, 1)


class OpenedByNative(Opened):
    """Decoded and resized by our own C: only the box of an ordinary JPEG; PIL decodes all other images."""

    DECODERS = {
        "native": {
            "summary": (
                "our own C on libjpeg-turbo: decodes only the crop's box, and resizes each row while it is in the cache"
            ),
            "pixels": "PIL's, bit for bit",
            "native": True,
        },
        "native_libjpeg": {
            "summary": (
                "like `native`, but with libjpeg-turbo's Huffman decoder: slower, to compare with or to rule ours out"
            ),
            "pixels": "PIL's, bit for bit",
            "native": True,
            "libjpeg": True,
        },
        "native_scaled": {
            "summary": (
                "like `native`, but decodes an image of 800 px or more at 1/2, 1/4 or 1/8 of its size if the box is at "
                "least twice the crop on both sides. For large photographs: [loading.md](loading.md)"
            ),
            "pixels": "the same box, less sharp: about 40 dB from PIL's",
            "native": True,
            "scaled": True,
        },
    }

    def __init__(self, source: Stored) -> None:
        self.source: Source = bytes(source.data) if isinstance(source, Encoded) else source
        self.table = bytes(source.table) if isinstance(source, Encoded) else b""
        shape = native.jpeg_shape(self.source) if isinstance(self.source, bytes) else None
        if shape is None:
            self.source = _pixels(self.source)
        super().__init__(*(shape or self.source.shape[:2]))  # type: ignore[union-attr]

    def _view(self, view: View) -> torch.Tensor:
        kept = native.view_jpeg(self.source, view, self.table) if isinstance(self.source, bytes) else None
        return cut_out(_pixels(self.source), view) if kept is None else torch.from_numpy(kept).permute(2, 0, 1)


class OpenedByTorchvision(Opened):
    """Decoded by torchvision, and resized by torch."""

    DECODERS = {
        "torchvision": {
            "summary": "decodes the whole image, and resizes with torch",
            "pixels": "within 1 of 255 of PIL's (bicubic: 3; rarely 1 more), except 4:4:0 color and missing scans",
        }
    }

    def __init__(self, source: Source) -> None:
        self.pixels = decode(source)
        super().__init__(*self.pixels.shape[1:])

    def _view(self, view: View) -> torch.Tensor:
        if needs_native(view):
            return cut_out(self.pixels.permute(1, 2, 0).numpy(), view)
        box = self.pixels[:, view.top : view.top + view.height, view.left : view.left + view.width]
        whole = resized(box, view.rows, view.columns, INTERPOLATIONS[view.filter])
        rows = slice(view.top_row, view.top_row + view.kept_rows)
        kept = whole[:, rows, view.left_column : view.left_column + view.kept_columns]
        return kept.flip(-1) if view.flip else kept


class OpenedByPil(Opened):
    """Decoded and resized by PIL."""

    DECODERS = {"pil": {"summary": "decodes the whole image and resizes, with PIL", "pixels": "PIL's"}}

    def __init__(self, source: Source) -> None:
        self.image = open_image(Image.fromarray(source) if isinstance(source, np.ndarray) else source)
        super().__init__(self.image.height, self.image.width)

    def _view(self, view: View) -> torch.Tensor:
        if needs_native(view):
            return cut_out(np.array(self.image), view)
        box = self.image.crop((view.left, view.top, view.left + view.width, view.top + view.height))
        whole = box.resize((view.columns, view.rows), Image.Resampling[INTERPOLATIONS[view.filter].upper()])
        corner = view.left_column + view.kept_columns, view.top_row + view.kept_rows
        kept = whole.crop((view.left_column, view.top_row, *corner))
        pixels = np.array(kept.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else kept)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _pixels(source: Source) -> np.ndarray:
    """Decode a whole image with PIL, uint8 [H, W, 3]."""
    return source if isinstance(source, np.ndarray) else np.array(open_image(source))
