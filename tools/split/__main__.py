"""Split a folder of classes into train/ and val/. Near-duplicates stay on one side.

    python -m tools.split photos photos-split
    python -m tools.split photos photos-split --val 0.1 --seed 3

SRC holds one folder per class, with images at any depth; it is not changed. DST gets train/CLASS and val/CLASS, as hard
links, which take no space, or as copies on another file system. Every class is split by the same share. Copies of an
image, also re-encoded, resized or slightly cropped ones, stay on one side. Images that cannot be read are listed and
left out. DST/split.csv says where each image went. The same command gives the same split.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from common import command, terminal
from common.terminal import ImageMeter, positive
from tools.split.options import add_options, rule

if TYPE_CHECKING:
    import numpy as np


def main(argv: Sequence[str]) -> int:
    """Split a folder of classes."""
    parser = command.parser("tools.split", __doc__)
    parser.add_argument("source", metavar="SRC", help="folder with one folder of images per class")
    parser.add_argument("target", metavar="DST", help="new folder, for train/ and val/")
    add_options(parser, val=0.2)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=positive, default=cores, help="processes (default: %(default)s)")
    given = parser.parse_args(argv)
    from tools.split.source import check_places  # late: torch takes seconds

    check_places(given.source, given.target)
    split(terminal.console(), Path(given.source), given)
    return 0


def split(console: Console, folder: Path, given: argparse.Namespace) -> None:
    """Look at the images, decide, write, and print what was done and what to type next."""
    from tools.convert.sources import FolderPart
    from tools.split.sides import decide, look_at_all
    from tools.split.source import read_source
    from tools.split.writing import write

    source = read_source(folder, given.target)
    paths, labels = [f"{folder}/{name}" for name in source.names], source.labels

    def part(indices: np.ndarray) -> FolderPart:
        return FolderPart(indices, [paths[index] for index in indices], [labels[index] for index in indices])

    found = look_at_all(console, len(paths), part, given.workers)
    advice = f"Add images to them, or move their folders out of {folder}."
    outcome = decide(console, source, found, rule(given), advice)
    with ImageMeter(console, "Linking", len(outcome.used)) as meter:
        copies = write(folder, Path(given.target), outcome.rows(), meter)
    outcome.show(console, given.target, copies)


run = partial(command.run, main, stopped="stopped; nothing was written")

if __name__ == "__main__":
    sys.exit(run())
