"""Table of the decoders and what each supports. Imports no torch.

A new decoder is a class in loaders/images/opened.py and a row here; docs/data.md shows the table.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import DataError
from common.suggest import did_you_mean, listing
from loaders.storage.kinds import kind_of

if TYPE_CHECKING:
    from config.schema import Config
    from loaders.images.decoding import Source
    from loaders.images.opened import Opened


@dataclass(frozen=True)
class Decoder:
    """One way to decode and resize images."""

    summary: str
    pixels: str  # how close they are to PIL's
    opened: str  # its class, as package.module:Class, imported when a pipeline is built
    native: bool = False  # whether it is our own C, which must be built and can decode a whole batch in one call
    scaled: bool = False  # whether it may decode large images at a fraction of their size
    libjpeg: bool = False  # whether it uses libjpeg-turbo's Huffman decoder


DECODERS = {
    "native": Decoder(
        "our own C on libjpeg-turbo: decodes only the crop's box, and resizes each row while it is in the cache",
        "PIL's, to the bit",
        "loaders.images.opened:OpenedByNative",
        native=True,
    ),
    "native_libjpeg": Decoder(
        "like `native`, but with libjpeg-turbo's Huffman decoder: slower, to compare with or to rule ours out",
        "PIL's, to the bit",
        "loaders.images.opened:OpenedByNative",
        native=True,
        libjpeg=True,
    ),
    "native_scaled": Decoder(
        "like `native`, but decodes an image of 800 px or more at 1/2, 1/4 or 1/8 of its size if the box is at least "
        "twice the crop on both sides. For large photographs: [loading.md](loading.md)",
        "the same box, less sharp: about 40 dB from PIL's",
        "loaders.images.opened:OpenedByNative",
        native=True,
        scaled=True,
    ),
    "torchvision": Decoder(
        "decodes the whole image, and resizes with torch",
        "within 1 of 255 of PIL's (one byte in millions: 2), except for 4:4:0 color and missing scans",
        "loaders.images.opened:OpenedByTorchvision",
    ),
    "pil": Decoder("decodes the whole image and resizes, with PIL", "PIL's", "loaders.images.opened:OpenedByPil"),
}
CHOICES = ("auto", *DECODERS)
"""Names that a configuration may use."""


def chosen(name: str) -> str:
    """Resolve a decoder name: `auto` is native if it is built, else torchvision; DataError if unknown or not built."""
    if name in DECODERS and not DECODERS[name].native:
        return name
    if name not in CHOICES:
        raise DataError(f"decoder: {name} given, but it must be {listing(CHOICES)}{did_you_mean(name, CHOICES)}")
    from loaders.images import native  # imports numpy, which a dry run does not need

    if name == "auto":
        return "native" if native.available() else "torchvision"
    if not native.available():
        raise DataError(f"decoder: {name} is not built here; type {native.HOW_TO_BUILD}, or decoder=auto")
    return name


def opener(name: str) -> Callable[[Source], Opened]:
    """Import the class that opens images for a decoder."""
    return pkgutil.resolve_name(DECODERS[name].opened)


def decoders_of(config: Config) -> dict[str, str]:
    """Return the decoder of each data section whose storage uses one of these; raises a DataError as `chosen`."""
    kinds = {name: kind_of(data.storage) for name, data in config.sections().items()}
    used = [name for name, kind in kinds.items() if kind.reads_path and not kind.own_decoder]
    return {name: chosen(config.section(name).decoder) for name in used}


def described(name: str) -> str:
    """Describe a decoder in one line, with the command to build the fast one if it is missing."""
    from loaders.images import native

    advice = "" if native.available() else f" (faster: {native.HOW_TO_BUILD})"
    if DECODERS[name].native and native.huffman_decoder() == "libjpeg-turbo":
        advice = ". Our Huffman decoder failed its self-test and is off."
    return f"decoder: {name}{advice}"
