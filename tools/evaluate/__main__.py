"""Show which classes and images a run gets wrong.

    python -m tools.evaluate runs/NAME
    python -m tools.evaluate runs/NAME --sizes 160,176,192,224,256,288 --checkpoint latest
    python -m tools.evaluate runs/NAME --data /data/another --no-flip -o elsewhere

Every image of val/ is evaluated once per size with the weights that main.py would evaluate, on a GPU or a CPU. The
loss is the mean softmax cross entropy, as val_loss in metrics.csv, also for a run that minimized the binary one. The
calibration error is the expected one, over 15 bins of equal width, in percentage points. With flip, the probabilities
of an image and its mirror image are averaged, and reported separately.

summary.json, per_class.csv, confusions.csv, sizes.csv, reliability.csv and mistakes.png go to runs/NAME/evaluation/.
"""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from common import command, terminal
from common.folders import check_folder
from common.whole_files import whole_group
from config import ConfigError, Run, UserError
from tools.evaluate.choice import advised, choose_checkpoint, choose_data, load_run, own_target

SMALLEST, LARGEST = 16, 1024  # pixels
MOST_MISTAKES = 600
ADVICE = "name another folder: -o FOLDER"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for an impossible size or number."""
    parser = command.parser("tools.evaluate", __doc__)
    add = parser.add_argument
    add("run", type=Path, help="a run folder, runs/NAME")
    add("--data", metavar="PATH", help="another data set with the same classes: a folder, or s3://...")
    add("--local", metavar="FOLDER", help="cache folder for the shards of --data")
    add("--checkpoint", default="best", metavar="best|latest|PATH", help="(default: best)")
    trusted = "run the code in a checkpoint that is more than data; only if you trust it"
    add("--load-unsafe-pickle", action="store_true", help=trusted)
    trusted = "import the classes from outside this project that the run's configuration names; only if you trust it"
    add("--outside-code", action="store_true", help=trusted)
    sizes = (
        "sides in pixels to evaluate at, besides the run's own crop_size; images are resized before the crop in the "
        "run's own ratio, such as 256 to 224 (with resize_size -1 not at all)"
    )
    add("--sizes", default="", metavar="160,176,...", help=sizes)
    add("--flip", action=argparse.BooleanOptionalAction, default=True, help="also average over a mirror image")
    add("--gallery", type=int, default=24, metavar="N", help="mistakes to show (default: %(default)s)")
    add("-o", "--out", type=Path, metavar="FOLDER", help="(default: RUN/evaluation)")
    given = parser.parse_args(argv)
    words = given.sizes.split(",") if given.sizes else []
    wrong = [word for word in words if not re.fullmatch(r"\d{1,5}", word) or not SMALLEST <= int(word) <= LARGEST]
    problems = []
    if wrong:
        allowed = f"whole pixels from {SMALLEST} to {LARGEST}, with commas between, as in --sizes 160,176,224"
        problems.append(f"--sizes {given.sizes}: {wrong[0]!r} is not a size; give {allowed}")
    if not 0 <= given.gallery <= MOST_MISTAKES:
        problems.append(f"--gallery {given.gallery}: give 0 (no image) to {MOST_MISTAKES}")
    if problems:
        raise ConfigError(*problems)
    given.sizes = [int(word) for word in words]
    return given


def main(argv: Sequence[str]) -> int:
    """Evaluate, write and print; return 0."""
    given = parse(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"this runs in one process; type: python -m tools.evaluate {shlex.quote(str(given.run))}")
    run = load_run(given.run, given.outside_code)
    target = given.out or own_target(given.run)
    config, called = run.config, given.run.resolve().name
    choose_data(config, given.data, given.local)

    # Imported late: torch takes seconds, and mistakes are reported before.
    from tools.evaluate import figures, files, passes
    from training import build
    from training.saved import read_checkpoint
    from training.secrets import redacted

    console = terminal.console()
    prepare(run, console)
    folder, name = choose_checkpoint(given.run, config, given.checkpoint)
    check_folder(target, f"{target}:", ADVICE)
    with advised():
        data = passes.open_data(run)
        saved = read_checkpoint(folder, name, given.load_unsafe_pickle)
        by_size = passes.evaluate(run, data, saved, given.sizes, given.flip, console)
        images, result = build.image_dataset(data.evaluation), by_size[config.eval_dataset.crop_size]
        names = images.classes or [str(label) for label in range(config.model.classes)]
        found = figures.findings(result, names)
        about = redacted({"checkpoint": f"{folder}/{name}", "data": config.eval_dataset.path, "size": result.size})
        sheet = files.draw_mistakes(images, figures.mistakes(result, given.gallery), called, found, about)
    try:
        with whole_group(target, files.FILES) as out:
            files.write_tables(out, found, by_size.values())
            if sheet:
                sheet.save(out / "mistakes.png")
            files.write_summary(out, found, about)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); {ADVICE}") from error
    files.show(console, found, by_size, f"{called}, {name}")
    written = [name for name in files.FILES if (target / name).exists()]
    console.print(f"written: {target}/ ({', '.join(written)})")
    return 0


def prepare(run: Run, console: Console) -> None:
    """Choose the device, and a precision that it supports."""
    import torch

    from training import devices

    signal.signal(signal.SIGINT, signal.default_int_handler)  # Composer's exits silently
    trained = run.config.precision
    if not torch.cuda.is_available():
        run.config.precision = None
    devices.prepare(run)
    if trained not in (None, run.machine.precision):
        console.print(f"evaluated in {run.machine.precision}: the run's {trained} needs a GPU")


run = partial(command.run, main, stopped="stopped; nothing was written")

if __name__ == "__main__":
    sys.exit(run())
