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
from common.errors import DataError
from common.terminal import ImageMeter, not_negative, positive

if TYPE_CHECKING:
    import numpy as np

    from tools.split.source import Source

PER_JOB = 64  # images


def main(argv: Sequence[str]) -> int:
    """Split a folder of classes."""
    parser = command.parser("tools.split", __doc__)
    parser.add_argument("source", metavar="SRC", help="folder with one folder of images per class")
    parser.add_argument("target", metavar="DST", help="new folder, for train/ and val/")
    parser.add_argument("--val", type=share, default=0.2, help="share for evaluation (default: %(default)s)")
    parser.add_argument("--seed", type=not_negative, default=17, help="another seed gives another split (%(default)s)")
    parser.add_argument("--exact", action="store_true", help="keep only exact copies together, not near-duplicates")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=positive, default=cores, help="processes (default: %(default)s)")
    given = parser.parse_args(argv)
    from tools.split.source import check_places, read_source  # late: torch takes seconds

    check_places(given.source, given.target)
    source = read_source(Path(given.source), given.target)
    split(terminal.console(), source, given)
    return 0


def share(word: str) -> float:
    """Parse a share of the images."""
    try:
        value = float(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} given, but it must be a number, as in 0.2") from error
    if not 0 < value < 1:
        meant = f"{value / 100:g}" if 1 < value < 100 else "0.2"
        raise argparse.ArgumentTypeError(f"{word} given, but it must be more than 0 and less than 1, as in {meant}")
    return value


def split(console: Console, source: Source, given: argparse.Namespace) -> None:
    """Look at the images, decide, write, and print what was done and what to type next."""
    import numpy as np

    from tools.split.allotment import TooFew, allot
    from tools.split.duplicates import groups
    from tools.split.outcome import Outcome
    from tools.split.writing import write

    digests, thumbnails, faults = _look(console, source, given.workers)
    used = np.array([index for index, fault in enumerate(faults) if not fault], dtype=int)
    digests, thumbnails, labels = digests[used], thumbnails[used], np.array(source.labels)[used]
    with ImageMeter(console, "Comparing", len(used)) as meter:
        alike = groups(digests, None if given.exact else thumbnails, meter)
    outcome = Outcome(source, faults, used, alike, digests, np.zeros(len(used), bool))
    try:
        outcome.is_val = allot(labels, alike, digests, len(source.classes), given.val, given.seed)
    except TooFew as error:
        raise DataError(outcome.too_few(error.labels)) from error
    with ImageMeter(console, "Linking", len(used)) as meter:
        copies = write(source.folder, Path(given.target), outcome.rows(), meter)
    outcome.show(console, given.target, copies)


def _look(console: Console, source: Source, workers: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the hash, the thumbnail and the fault of every image."""
    import numpy as np

    from tools.convert.crew import Crew, report
    from tools.split.looking import SIDE, look

    count = len(source.names)
    digests, thumbnails, faults = np.zeros(count, np.uint64), np.zeros((count, SIDE, SIDE), np.uint8), [""] * count
    paths = [source.folder / name for name in source.names]
    jobs = ((start, paths[start : start + PER_JOB], report) for start in range(0, count, PER_JOB))
    with Crew(min(workers, -(-count // PER_JOB))) as crew, ImageMeter(console, "Reading", count) as meter:
        for _, found in crew.run(look, jobs, meter):
            images = slice(found.start, found.start + len(found.faults))
            digests[images], thumbnails[images], faults[images] = found.digests, found.thumbnails, found.faults
    return digests, thumbnails, faults


run = partial(command.run, main, stopped="stopped; nothing was written")

if __name__ == "__main__":
    sys.exit(run())
