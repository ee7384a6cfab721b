"""Classify images with a trained network.

    python -m tools.predict runs/NAME photos/ cat.jpg
    python -m tools.predict runs/NAME 'photos/**/*.jpg' --top 1 --threshold 0.5 -o answers.csv
    find . -name '*.jpg' | python -m tools.predict runs/NAME - --format jsonl

Images are decoded, resized and cropped as in the run's evaluation. Answers are printed image by image, or written to
the file of -o, which appears when it is complete. Files that cannot be read are listed on stderr; the others are
classified, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from common import command
from common.errors import ConfigError, UserError, counted
from common.folders import check_folder
from common.terminal import local_path, positive
from common.whole_files import whole_file
from tools.networks.options import add_network_options, network_problems, open_given
from tools.predict import formats, inputs
from tools.predict.answers import best_answers
from tools.predict.formats import Prediction
from tools.predict.progress import Progress

if TYPE_CHECKING:
    from tools.networks.opened import Network
    from tools.predict.images import Batch, Reader
    from tools.predict.sheet import Sheet

BROKEN_PIPE = 128 + signal.SIGPIPE  # the exit status when a reader such as `head` has seen enough
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl"}
ADVICE = "name another file"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for options that exclude each other."""
    parser = command.parser("tools.predict", __doc__)
    add = parser.add_argument
    add_network_options(parser)
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image, a folder, a pattern, s3://bucket/..., or - for names on stdin",
    )
    add("--top", type=positive, default=5, metavar="K", help="classes per image (default: %(default)s)")
    add("--threshold", type=_share, default=0.0, metavar="P", help="leave out classes less probable than this, 0 to 1")
    add("--format", choices=formats.FORMATS, help="(default: table, or by the suffix of -o)")
    add("--wide", action="store_true", help="csv with a row per image instead of a row per class")
    add("-o", "--out", type=local_path, metavar="FILE", help="write to this file instead of printing")
    add("--sheet", type=local_path, metavar="FILE.png", help="also draw the first 120 images with their answers")
    add("--upright", action="store_true", help="turn images by their orientation tag, which training ignores")
    add("--batch", type=positive, default=64, metavar="N", help="images per step (default: %(default)s)")
    add("--null", action="store_true", help="or -0: names on stdin end with a null byte, as from find -print0")
    # Not as an option of its own, with which argparse would take the -1 of --resize -1 for another one.
    given = parser.parse_intermixed_args(["--null" if word == "-0" else word for word in argv])
    if given.format is None:
        given.format = SUFFIXES.get(given.out.suffix.lower(), "table") if given.out else "table"
    problems = network_problems(given)
    if given.wide and given.format != "csv":
        problems.append(f"--wide: is for csv, but the format is {given.format}; add --format csv")
    if given.sheet and given.sheet.suffix.lower() != ".png":
        problems.append(f"--sheet {given.sheet}: a sheet is a PNG; name it {given.sheet.with_suffix('.png')}")
    if problems:
        raise ConfigError(*problems)
    return given


def _share(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(word) <= 1:
            return float(word)
    raise argparse.ArgumentTypeError(f"{word!r} given, but it must be a number from 0 to 1")


def main(argv: Sequence[str]) -> int:
    """Classify and write; return 1 if some files could not be read."""
    given = parse(argv)
    for option, file in (("-o", given.out), ("--sheet", given.sheet)):
        if file:
            if file.exists() and not file.is_file():
                raise ConfigError(f"{option} {file}: is not a file, and would be replaced; {ADVICE}")
            check_folder(file.parent, f"{option} {file}:", ADVICE)
    names = inputs.find(given.paths, b"\0" if given.null else b"\n")

    # Imported late: torch takes seconds, and mistakes are reported before.
    from tools.predict.images import Reader
    from tools.predict.sheet import Sheet

    command.restore_ctrl_c()
    warnings.filterwarnings("ignore", module="PIL")  # of images with odd metadata
    network, called = open_given(given)
    given.top = min(given.top, len(network.classes))
    show = Progress(given.out is not None or not sys.stdout.isatty())
    if show.shown and inputs.STDIN not in given.paths:
        names, show.total = inputs.counted(names)
    reader = Reader(network.pipeline(), given.upright, show.line)
    sheet = Sheet(network.called)
    predicted = predictions(
        network, called, show.counted(reader.batches(names, given.batch), lambda: reader.bytes), given, sheet
    )
    try:
        write(predicted, given)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which Python flushes when it exits
        return BROKEN_PIPE
    finally:
        show.end()
    if given.sheet and sheet.tiles:
        sheet.save(given.sheet)
    summarize(reader, sheet.images, given)
    return 1 if reader.unreadable else 0


def predictions(
    network: Network, called: Sequence[str], batches: Iterable[Batch], given: argparse.Namespace, sheet: Sheet
) -> Iterator[Prediction]:
    """Yield the answers to each image, as they are needed; UserError for outputs that are not finite."""
    for files, images in batches:
        for file, image, answers in zip(
            files, images, best_answers(network, called, images, given.top, given.threshold), strict=True
        ):
            prediction = Prediction(file, answers)
            sheet.add(prediction, image if given.sheet else None)
            yield prediction


def write(predicted: Iterable[Prediction], given: argparse.Namespace) -> None:
    """Write the predictions to stdout as they come, or to a file that appears at the end."""
    texts = (formats.as_wide_csv if given.wide else formats.FORMATS[given.format])(predicted, given.top)
    try:
        if not given.out:
            for text in texts:
                print(text, end="", flush=True)
            return
        # A file's name may hold bytes that are not UTF-8.
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(given.out) as temporary, _opened(temporary) as file:
            file.writelines(texts)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"{f'-o {given.out}' if given.out else 'stdout'}: cannot be written ({error.strerror}); {ADVICE}"
        ) from error


def _opened(path: Path) -> TextIO:
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def summarize(reader: Reader, images: int, given: argparse.Namespace) -> None:
    """Print what was written, on stdout if nothing else is, and what was odd, on stderr."""
    for file in filter(None, (given.out, given.sheet)):
        if file == given.out or images:
            what = f"written: {file} ({counted(images, 'image', 'images')})"
            print(what, file=sys.stdout if given.out else sys.stderr)
    if reader.turned and not given.upright:
        of = f"{reader.turned:,} of {counted(images, 'image', 'images')} {'carries' if reader.turned == 1 else 'carry'}"
        print(
            f"{of} an orientation tag and may be seen sideways, as in training; --upright turns them", file=sys.stderr
        )
    if not images + reader.unreadable:
        print("no images were named on stdin", file=sys.stderr)
    if reader.unreadable:
        of = f"{reader.unreadable:,} of {counted(images + reader.unreadable, 'file', 'files')}"
        print(f"{of} could not be read", file=sys.stderr)


run = partial(command.run, main, stopped="stopped")

if __name__ == "__main__":
    sys.exit(run())
