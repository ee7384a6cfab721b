"""From an encoded image to RGB pixels: libjpeg-turbo for ordinary JPEGs, PIL for everything else.

Whatever is stored, the pixels are those of PIL's `convert("RGB")`: EXIF rotation is not applied, alpha is dropped. PIL
opens the formats that are named here and no others, so that no stranger's file reaches a program such as Ghostscript;
and nothing decodes an image that has more pixels than PIL allows, 178,956,970, or resizes one to more.
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

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"


def most_pixels() -> float:
    """How many an image may have, decoded or resized: what PIL refuses to open has more."""
    return 2 * (Image.MAX_IMAGE_PIXELS or math.inf)


def open_file(source: bytes | Path) -> PilImage:
    """Open one image with PIL, which reads no more than its header.

    Args:
        source: an encoded file's bytes, or the path of a file.

    Raises:
        UnidentifiedImageError: it is in none of FORMATS.
        Exception: whatever else PIL raises, as for an image with too many pixels.
    """
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise UnidentifiedImageError(f"cannot identify image file; the formats that are read are {kinds}") from error


def shape_of(source: Source | Path) -> tuple[int, int]:
    """Height and width in pixels, from a file's first bytes.

    Args:
        source: as for `decode`, or the path of a file, of which no more is read.

    Raises:
        Exception: whatever PIL raises for bytes that are no image.
    """
    if isinstance(source, np.ndarray):
        return source.shape[0], source.shape[1]
    if isinstance(source, PilImage):
        return source.height, source.width
    with open_file(source) as image:
        return image.height, image.width


def open_image(source: bytes | PilImage) -> PilImage:
    """Decode one image to RGB with PIL.

    Args:
        source: an encoded file's bytes, or an image already decoded.

    Raises:
        Exception: whatever PIL raises for bytes that are no image, or end too early.
    """
    image = open_file(source) if isinstance(source, bytes) else source
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, PIL warns of the transparency that it drops
    return image.convert("RGB")


def decode(source: Source) -> torch.Tensor:
    """Decode one image to uint8 [3, H, W], stored row by row with the channels last.

    Args:
        source: an encoded file's bytes, pixels [H, W, 3], or a PIL image.

    Raises:
        Exception: whatever PIL raises for bytes that are no image, or end too early.
    """
    if isinstance(source, np.ndarray):
        return torch.from_numpy(source).permute(2, 0, 1)
    if isinstance(source, bytes) and source.startswith(_JPEG):
        open_file(source).close()  # refuses what has too many pixels
        pixels = _decode_jpeg(source)
        if pixels is not None:
            return pixels
    return torch.from_numpy(np.array(open_image(source), dtype=np.uint8)).permute(2, 0, 1)


def check(source: Source) -> tuple[int, int]:
    """Decode all of an image to find out what is wrong with it; its height and width in pixels.

    Where the native library is built, JPEGs of which it warns are refused: PIL makes up what is damaged in their
    scans, in silence.

    Raises:
        DamagedScan: a JPEG is damaged, though PIL decodes it.
        Exception: whatever PIL raises for bytes that are no image, or end too early.
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
    """Whether an image is grey with more than 8 bits a pixel: PIL makes white of all that is above 255."""
    if isinstance(source, bytes) and not source.startswith(_JPEG):
        source = open_file(source)
    return isinstance(source, PilImage) and source.mode.startswith(("I", "F"))


def unchecked() -> str | None:
    """What `check` cannot find on this machine, in a sentence; None where it finds everything."""
    if native.available():
        return None
    return f"Damage inside JPEGs, which PIL decodes in silence, was not looked for; to find it: {native.HOW_TO_BUILD}"


def _decode_jpeg(source: bytes) -> torch.Tensor | None:
    """A JPEG by libjpeg-turbo; None for CMYK, damage, and whatever else is unusual, which PIL decodes or refuses."""
    if native.available():
        shape = native.jpeg_shape(source)
        whole = native.view_jpeg(source, native.whole(*shape, *shape)) if shape else None
        return None if whole is None else torch.from_numpy(whole).permute(2, 0, 1)
    if not source.endswith(_JPEG_END):
        return None  # of a file that is cut off, torchvision never gives back the memory (vision issue 9383)
    try:
        # bytearray: torch wants memory that it may write to; copying it costs a hundredth of decoding it.
        pixels = decode_jpeg(torch.frombuffer(bytearray(source), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError:
        return None
    if pixels.shape[0] == 1:
        return pixels[0, :, :, None].expand(-1, -1, 3).contiguous().permute(2, 0, 1)
    return pixels if pixels.shape[0] == 3 else None
