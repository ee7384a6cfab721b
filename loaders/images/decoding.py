"""From an encoded image to RGB pixels: libjpeg-turbo for ordinary JPEGs, PIL for everything else.

The pixels are always those of PIL's `convert("RGB")`: EXIF rotation is not applied, alpha is dropped. No image of more
pixels than PIL allows (178,956,970) is decoded, or made by resizing.
"""

import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from loaders.errors import DamagedScan
from loaders.images import native

PilImage = Image.Image
Source = bytes | np.ndarray | PilImage
"""An encoded file, pixels as uint8 [H, W, 3], or an image that PIL has opened."""
Stored = Source | native.Encoded
"""The same, or an encoded file with its seek table, which only the native decoders read."""

# PIL opens no other format, so that an untrusted file cannot reach a program such as Ghostscript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"


def most_pixels() -> float:
    """Most pixels of an image, decoded or resized: the number above which PIL does not open it."""
    return 2 * (Image.MAX_IMAGE_PIXELS or math.inf)


def open_file(source: bytes | Path) -> PilImage:
    """Open one image with PIL, which reads only its header and may raise any Exception, such as for too many pixels."""
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        raise UnidentifiedImageError(f"cannot identify image file; the supported formats are {formats}") from error


def shape_of(source: Source | Path) -> tuple[int, int]:
    """Read height and width in pixels from the header; raises as `open_file`."""
    if isinstance(source, np.ndarray):
        return source.shape[0], source.shape[1]
    if isinstance(source, PilImage):
        return source.height, source.width
    with open_file(source) as image:
        return image.height, image.width


def open_image(source: bytes | PilImage) -> PilImage:
    """Decode one image to RGB with PIL.

    Raises:
        Exception: whatever PIL raises for bytes that are not an image, or end too early.
    """
    image = open_file(source) if isinstance(source, bytes) else source
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # converting straight to RGB makes PIL warn about the dropped transparency
    return image.convert("RGB")


def decode(source: Source) -> torch.Tensor:
    """Decode one image to uint8 [3, H, W], stored row by row with the channels last; raises as `open_image`."""
    if isinstance(source, np.ndarray):
        return torch.from_numpy(source).permute(2, 0, 1)
    if isinstance(source, bytes) and source.startswith(_JPEG):
        open_file(source).close()  # raises if there are too many pixels
        pixels = _decode_jpeg(source)
        if pixels is not None:
            return pixels
    return torch.from_numpy(np.array(open_image(source), dtype=np.uint8)).permute(2, 0, 1)


def check(source: Source) -> tuple[int, int]:
    """Decode all of an image to find faults; return its height and width in pixels.

    The native library, if it is built, also finds JPEGs with damaged scans, which PIL fills in silently.

    Raises:
        DamagedScan: a JPEG is damaged, though PIL decodes it.
        Exception: as `open_image`.
    """
    shape, warning = shape_of(source), None
    if isinstance(source, bytes) and source.startswith(_JPEG) and native.available():
        warning = native.jpeg_warning(source)
        if warning is None:
            return shape
    if not isinstance(source, np.ndarray):
        open_image(source)
    if warning:
        raise DamagedScan(warning)
    return shape


def is_too_deep(source: Source) -> bool:
    """Whether an image is gray with more than 8 bits per pixel: PIL clips such values to 255."""
    if isinstance(source, bytes) and not source.startswith(_JPEG):
        source = open_file(source)
    return isinstance(source, PilImage) and source.mode.startswith(("I", "F"))


def unchecked() -> str | None:
    """Describe what `check` cannot find on this machine; None if it finds everything."""
    if native.available():
        return None
    return f"Damage inside JPEGs, which PIL decodes silently, was not checked; to check it: {native.HOW_TO_BUILD}"


def _decode_jpeg(source: bytes) -> torch.Tensor | None:
    """Decode a JPEG with libjpeg-turbo; None for CMYK, damage and other unusual ones, which are left to PIL."""
    if native.available():
        shape = native.jpeg_shape(source)
        whole = native.view_jpeg(source, native.whole(*shape, *shape)) if shape else None
        return None if whole is None else torch.from_numpy(whole).permute(2, 0, 1)
    if not source.endswith(_JPEG_END):
        return None  # torchvision leaks the memory of a truncated file (vision issue 9383)
    try:
        # bytearray: torch needs writable memory; the copy takes a hundredth of the decoding time.
        pixels = decode_jpeg(torch.frombuffer(bytearray(source), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError:
        return None
    if pixels.shape[0] == 1:
        return pixels[0, :, :, None].expand(-1, -1, 3).contiguous().permute(2, 0, 1)
    return pixels if pixels.shape[0] == 3 else None
