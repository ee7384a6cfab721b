"""The decoders, and what each can do: the one table that everyone who asks reads. Imports no torch.

A new decoder is its class in loaders/images/opened.py and its row here; docs/data.md shows the table.
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
    """One way to decode and resize images.

    Args:
        summary: what it does, in a sentence.
        pixels: how close they are to PIL's.
        opened: its class, as package.module:Class, imported when a pipeline is built.
        native: it is our own C, which may not be built here, and which makes a whole batch in one call.
        scaled: it may decode large images at a fraction of their size.
    """

    summary: str
    pixels: str
    opened: str
    native: bool = False
    scaled: bool = False


DECODERS = {
    "native": Decoder(
        "our own C over libjpeg-turbo: decodes only the box that is wanted, and resizes each row while it is in the "
        "cache",
        "PIL's, to the bit",
        "loaders.images.opened:OpenedByNative",
        native=True,
    ),
    "native_scaled": Decoder(
        "as `native`; an image of 800 px or more, of which the box is at least twice the result on both sides, is "
        "decoded at a half, a quarter or an eighth of its size. For large photographs: [loading.md](loading.md)",
        "the others' box, seen less sharply: about 40 dB from PIL's",
        "loaders.images.opened:OpenedByNative",
        native=True,
        scaled=True,
    ),
    "torchvision": Decoder(
        "decodes the whole image, and resizes with torch",
        "1 of 255 from PIL's at most (one byte in millions: 2); further where libraries differ: color sampled 4:4:0, "
        "missing scans",
        "loaders.images.opened:OpenedByTorchvision",
    ),
    "pil": Decoder("PIL does both", "PIL's", "loaders.images.opened:OpenedByPil"),
}
CHOICES = ("auto", *DECODERS)
"""What a configuration may name."""


def chosen(name: str) -> str:
    """The decoder that a name stands for on this machine: `auto` is native where it is built, else torchvision.

    Raises:
        DataError: there is no such decoder, or it is not built.
    """
    if name in DECODERS and not DECODERS[name].native:
        return name
    if name not in CHOICES:
        raise DataError(f"decoder: {name} given, but it must be {listing(CHOICES)}{did_you_mean(name, CHOICES)}")
    from loaders.images import native  # imports numpy, which a dry run does without

    if name == "auto":
        return "native" if native.available() else "torchvision"
    if not native.available():
        raise DataError(f"decoder: {name} is not built here; type {native.HOW_TO_BUILD}, or decoder=auto")
    return name


def opener(name: str) -> Callable[[Source], Opened]:
    """The class that opens images for a decoder."""
    return pkgutil.resolve_name(DECODERS[name].opened)


def decoders_of(config: Config) -> dict[str, str]:
    """The decoder of each data section of a run whose storage decodes with one of these.

    Raises:
        DataError: one is not built.
    """
    sections = config.sections().items()
    return {name: chosen(data.decoder) for name, data in sections if kind_of(data.storage).uses_decoder}


def described(name: str) -> str:
    """A decoder in a line, with how to get the fast one where that is not built."""
    from loaders.images import native

    advice = "" if native.available() else f" (faster: {native.HOW_TO_BUILD})"
    return f"decoder: {name}{advice}"
