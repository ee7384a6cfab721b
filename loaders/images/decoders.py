"""Table of the decoders and what each supports, as their classes in loaders/images/opened.py declare. No torch."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.suggest import did_you_mean, listing

if TYPE_CHECKING:
    from loaders.images.opened import Opened


@dataclass(frozen=True)
class Decoder:
    """One way to decode and resize images."""

    summary: str  # for the docs
    pixels: str  # how close they are to PIL's, for the docs
    opened: str  # its class, as package.module:Class, imported when a pipeline is built
    native: bool = False  # whether it is our own C, which must be built and can decode a whole batch in one call
    scaled: bool = False  # whether it may decode large images at a fraction of their size
    libjpeg: bool = False  # whether it uses libjpeg-turbo's Huffman decoder


def declared() -> dict[str, Decoder]:
    """Read the rows from the source of the classes: importing them would import torch."""
    rows: dict[str, Decoder] = {}
    tree = ast.parse(Path(__file__).with_name("opened.py").read_text(encoding="utf-8"))
    for made in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        for line in made.body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "DECODERS":
                opened = f"loaders.images.opened:{made.name}"
                rows |= {name: Decoder(opened=opened, **row) for name, row in ast.literal_eval(line.value).items()}
    return rows


INTERPOLATIONS = ("bilinear", "bicubic", "area")
"""Filters of a resize: PIL's antialiased ones, and OpenCV's INTER_AREA; numbered in this order in native/area.h."""
DECODERS = declared()
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


def check_interpolation(name: str) -> None:
    """Raise a DataError for an interpolation that is unknown, or that this machine cannot compute."""
    if name not in INTERPOLATIONS:
        advice = did_you_mean(name, INTERPOLATIONS)
        raise DataError(f"interpolation: {name} given, but it must be {listing(INTERPOLATIONS)}{advice}")
    if name == "area":
        from loaders.images import native

        if not native.available():
            raise DataError(
                f"interpolation: only our own C computes area, and it is not built here; type {native.HOW_TO_BUILD}, "
                "or interpolation=bilinear"
            )


def opener(name: str) -> Callable[[Any], Opened]:
    """Import the class that opens images for a decoder: a Stored one if it is native, else a Source."""
    return pkgutil.resolve_name(DECODERS[name].opened)


def described(name: str) -> str:
    """Describe a decoder in one line, with the command to build the fast one if it is missing."""
    from loaders.images import native

    advice = "" if native.available() else f" (faster: {native.HOW_TO_BUILD})"
    if DECODERS[name].native and native.huffman_decoder() == "libjpeg-turbo":
        advice = ". Our Huffman decoder failed its self-test and is off."
    return f"decoder: {name}{advice}"
