"""What a network takes, and the options that say it of a file that does not. No torch."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from common.terminal import positive

INSTALL = "pip install -c constraints.txt '.[export]'"  # what networks outside a run folder need
SUFFIXES = (".onnx", ".pt", ".pt2")  # of networks
INPUT = ("resize", "crop", "mean", "std")
"""Names of the options."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Input:
    """What a network takes, as far as it is stated; sizes in pixels."""

    resize_size: int | None = None  # short side before the crop; -1: no resize
    crop_size: int | None = None
    mean: Triple | None = None  # of the channels, for images in 0..1; None if it takes bytes
    std: Triple | None = None


def add_input_options(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the options; `file` is what the command line calls the network's file."""
    add = parser.add_argument_group(f"the input of {file}, as far as the file does not say it").add_argument
    add("--resize", type=resize, metavar="256", help="short side in pixels before the crop; -1: not resized")
    add("--crop", type=positive, metavar="224", help="side of the images in pixels")
    add("--mean", type=channels, metavar="R,G,B", help="mean of each channel of images in 0..1; one number for all")
    add("--std", type=deviations, metavar="R,G,B", help="their standard deviation")


def stated(given: argparse.Namespace) -> Input:
    """Return what the options say."""
    return Input(given.resize, given.crop, given.mean, given.std)


def resize(word: str) -> int:
    """Parse -1 or a positive number of pixels."""
    return -1 if word == "-1" else positive(word)


def channels(word: str) -> Triple:
    """Parse one number, or three with commas between."""
    try:
        numbers = [float(part) for part in word.split(",")]
        red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError as error:
        text = f"{word!r} given, but it must be a number per channel, as in 0.485,0.456,0.406, or one for all"
        raise argparse.ArgumentTypeError(text) from error
    if max(numbers) > 1:
        text = f"{word!r} given, but it must be of images in 0..1; divide numbers for images in 0..255 by 255"
        raise argparse.ArgumentTypeError(text)
    return red, green, blue


def deviations(word: str) -> Triple:
    """Parse `channels`, which must be more than 0."""
    numbers = channels(word)
    if min(numbers) <= 0:
        raise argparse.ArgumentTypeError(f"{word!r} given, but it must be more than 0")
    return numbers
