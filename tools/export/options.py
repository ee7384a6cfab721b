"""The command line of tools.export."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from common import command
from common.errors import ConfigError
from common.suggest import did_you_mean, listing
from common.terminal import local_path
from tools.evaluate.options import LARGEST, SMALLEST
from tools.export.formats import CODE, FORMATS, INT8, PROGRAMS


def parse(argv: Sequence[str], description: str | None) -> argparse.Namespace:
    """Parse the command line; ConfigError for formats and options that do not go together."""
    listed = "\n".join(f"  {name:12} {one.names[0].format('NAME'):18} {one.what}" for name, one in FORMATS.items())
    parser = command.parser("tools.export", description, epilog=f"formats:\n{listed}")
    add = parser.add_argument
    add("run", type=local_path, nargs="?", help="a run folder, runs/NAME")
    add("--format", nargs="+", action="extend", default=[], metavar="FORMAT", help="one or more of those below")
    add("--checkpoint", default="best", metavar="best|latest|PATH", help="(default: best)")
    add("--size", type=int, metavar="N", help="side of the images in pixels (default: the run's crop_size)")
    add("--logits", action="store_true", help="programs give logits instead of probabilities")
    add("--int8", action="store_true", help="onnx in 8 bits, a quarter of the size; prints what that costs in top-1")
    add("--with-code", action="store_true", help=f"also write {CODE}, with which weights of BlurPool's networks load")
    add("--license", metavar="ID", help="of the weights, for hub and space, as in apache-2.0 (default: none is named)")
    add(
        "--examples", metavar="FOLDER", help="put its first 8 images into a space, which publishes them (default: none)"
    )
    add("--data", metavar="PATH", help="data set for the comparison, instead of the run's: a folder, or s3://...")
    add("--local", metavar="FOLDER", help="cache folder for the shards of --data")
    add("-o", "--out", type=local_path, metavar="FOLDER", help="(default: RUN/export)")
    trusted = "run the code in a checkpoint that is more than data; only if you trust it"
    add("--load-unsafe-pickle", action="store_true", help=trusted)
    trusted = "import the classes from outside this project that the run's configuration names; only if you trust it"
    add("--outside-code", action="store_true", help=trusted)
    given = parser.parse_args(argv)
    words = [name for word in given.format for name in word.split(",") if name]
    if given.run is None and words and words[-1] not in FORMATS and Path(words[-1]).is_dir():
        given.run = Path(words.pop())  # --format pth onnx runs/NAME
    given.format = list(dict.fromkeys(words))
    if problems := _problems(given):
        raise ConfigError(*problems)
    given.format = [INT8 if given.int8 and name == "onnx" else name for name in given.format]
    return given


def _problems(given: argparse.Namespace) -> list[str]:
    problems = [] if given.run else ["give a run folder, runs/NAME"]
    if not given.format:
        problems.append(f"give a format: --format {listing(FORMATS)}")
    for name in given.format:
        if name not in FORMATS:
            problems.append(f"--format {name}: no such format; give {listing(FORMATS)}{did_you_mean(name, FORMATS)}")
    if given.size is not None and not SMALLEST <= given.size <= LARGEST:
        problems.append(f"--size {given.size}: give {SMALLEST} to {LARGEST} pixels")
    if given.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", given.license):
        problems.append(f"--license {given.license}: give an identifier of the Hub, as in apache-2.0 or cc-by-nc-4.0")
    for option, is_given, fitting in (
        ("--logits", given.logits, PROGRAMS),
        ("--int8", given.int8, ["onnx"]),
        ("--license", given.license, ["hub", "space"]),
        ("--examples", given.examples, ["space"]),
        ("--with-code", given.with_code, [name for name, kind in FORMATS.items() if kind.takes_code]),
    ):
        if is_given and given.format and not set(fitting) & set(given.format):
            problems.append(f"{option}: is for --format {listing(fitting)}")
    if given.logits and "space" in given.format and set(PROGRAMS) & set(given.format):
        problems.append("--logits: a space shows probabilities; write it with another command")
    return problems + (_without_images(given.examples) if given.examples else [])


def _without_images(folder: str) -> list[str]:
    from tools.predict import inputs  # which imports torch

    try:
        inputs.find([folder])
    except ConfigError as error:
        return error.problems
    return []
