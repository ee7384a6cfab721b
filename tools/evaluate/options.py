"""The command line of tools.evaluate."""

import argparse
import re
from collections.abc import Sequence

from common import command
from common.errors import ConfigError
from common.terminal import local_path
from tools.networks.inputs import INPUT, add_input_options
from tools.networks.options import add_trust_options

SMALLEST, LARGEST = 16, 1024  # pixels
MOST_MISTAKES = 600


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for an impossible size or number."""
    parser = command.parser("tools.evaluate", __doc__)
    add = parser.add_argument
    add("run", type=local_path, nargs="?", help="a run folder, runs/NAME")
    add(
        "--model",
        type=local_path,
        metavar="FILE",
        help="a network instead of a run: .onnx, .pt of TorchScript, or .pt2",
    )
    add("--data", metavar="PATH", help="another data set with the same classes: a folder, or s3://...")
    add("--local", metavar="FOLDER", help="cache folder for the shards of --data")
    add("--checkpoint", metavar="best|latest|PATH", help="(default: best)")
    add_trust_options(parser)
    sizes = (
        "sides in pixels to evaluate at, besides the run's own crop_size; images are resized before the crop in the "
        "run's own ratio, such as 256 to 224 (with resize_size -1 not at all)"
    )
    add("--sizes", default="", metavar="160,176,...", help=sizes)
    add("--flip", action=argparse.BooleanOptionalAction, default=True, help="also average over a mirror image")
    add("--gallery", type=int, default=24, metavar="N", help="mistakes to show (default: %(default)s)")
    names = "names of the classes: lines \"n01440764 tench\", or JSON (default: the data set's, or ImageNet's)"
    add("--names", type=local_path, metavar="FILE", help=names)
    add("-o", "--out", type=local_path, metavar="FOLDER", help="(default: RUN/evaluation, or FILE-evaluation)")
    add_input_options(parser, "--model")
    given = parser.parse_args(argv)
    words = given.sizes.split(",") if given.sizes else []
    wrong = [word for word in words if not re.fullmatch(r"\d{1,5}", word) or not SMALLEST <= int(word) <= LARGEST]
    problems = []
    if wrong:
        allowed = f"whole pixels from {SMALLEST} to {LARGEST}, with commas between, as in --sizes 160,176,224"
        problems.append(f"--sizes {given.sizes}: {wrong[0]!r} is not a size; give {allowed}")
    if not 0 <= given.gallery <= MOST_MISTAKES:
        problems.append(f"--gallery {given.gallery}: give 0 (no image) to {MOST_MISTAKES}")
    problems += _contradictions(given)
    if problems:
        raise ConfigError(*problems)
    given.sizes = [int(word) for word in words]
    return given


def _contradictions(given: argparse.Namespace) -> list[str]:
    """Return a sentence for each option that does not go with a run, or with --model."""
    if given.model is None:
        described = [f"--{name}" for name in INPUT if getattr(given, name) is not None]
        if given.run is None:
            return ["give a run folder, runs/NAME, or the file of a network: --model FILE"]
        return [f"{', '.join(described)}: for --model FILE; a run knows its own"] if described else []
    problems = []
    if given.run is not None:
        problems.append(f"{given.run}, --model {given.model}: give a run or a network, not both")
    if given.data is None:
        problems.append(f"--model {given.model}: add the data set to evaluate it on: --data PATH")
    for option, value in (("--checkpoint", given.checkpoint), ("--sizes", given.sizes)):
        if value:
            problems.append(f"{option}: is for a run; --model takes images of one size, from one file")
    return problems
