"""Show which classes and images a run gets wrong, and how surely.

    python -m tools.evaluate runs/NAME
    python -m tools.evaluate runs/NAME --sizes 160,176,192,224,256,288 --checkpoint latest
    python -m tools.evaluate runs/NAME --data /data/another --no-flip -o elsewhere

Every image of val/ is evaluated once per size with the weights that main.py would evaluate, on a GPU or a CPU.
The loss is the softmax cross entropy, also of a run that minimised the binary one, and the mean over all images,
as val_loss in metrics.csv is. The calibration error is the expected one: confidence beside accuracy in
15 bins of equal width, in per cent points. With flip, the probabilities of an image and of
its mirror image are averaged; that is reported apart.

summary.json, per_class.csv, confusions.csv, sizes.csv, reliability.csv and mistakes.png go to runs/NAME/evaluation/.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from common import command
from config import ConfigError, Run
from tools.evaluate.choice import advised, choose_checkpoint, choose_data, load_run, own_target

SMALLEST, LARGEST = 16, 1024  # pixels
MOST_MISTAKES = 600


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: for a size or a number that cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder, runs/NAME")
    parser.add_argument("--data", metavar="PATH", help="another data set with the same classes: a folder, or s3://...")
    parser.add_argument("--local", metavar="FOLDER", help="cache folder for the shards of --data")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|PATH", help="(default: best)")
    parser.add_argument(
        "--load-unsafe-pickle",
        action="store_true",
        help="run the code in a checkpoint that is more than data; only if you trust it",
    )
    parser.add_argument(
        "--outside-code",
        action="store_true",
        help="import the classes from outside this project that the run's configuration names; only if you trust it",
    )
    parser.add_argument(
        "--sizes",
        default="",
        metavar="160,176,...",
        help="sides in pixels to evaluate at beside the run's own crop_size; images are resized before the crop in "
        "the run's own ratio, such as 256 to 224 (with resize_size -1 not at all)",
    )
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="also average over a mirror image"
    )
    parser.add_argument("--gallery", type=int, default=24, metavar="N", help="mistakes to show (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="(default: RUN/evaluation)")
    given = parser.parse_args(argv)
    words = given.sizes.split(",") if given.sizes else []
    wrong = [word for word in words if not re.fullmatch(r"\d{1,5}", word) or not SMALLEST <= int(word) <= LARGEST]
    problems = []
    if wrong:
        allowed = f"whole pixels from {SMALLEST} to {LARGEST}, with commas between, as in --sizes 160,176,224"
        problems.append(f"--sizes {given.sizes}: {wrong[0]!r} is no size; give {allowed}")
    if not 0 <= given.gallery <= MOST_MISTAKES:
        problems.append(f"--gallery {given.gallery}: give 0 (no image) to {MOST_MISTAKES}")
    if problems:
        raise ConfigError(*problems)
    given.sizes = [int(word) for word in words]
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write and print; 0."""
    given = parse(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"this runs in one process; type: python -m tools.evaluate {shlex.quote(str(given.run))}")
    run = load_run(given.run, given.outside_code)
    target = given.out or own_target(given.run)
    config, called = run.config, given.run.resolve().name
    choose_data(config, given.data, given.local)

    # torch takes seconds to import: a mistake is answered before.
    from tools.evaluate import figures, files, gallery, passes, printing
    from training import build
    from training.saved import read_checkpoint
    from training.secrets import redacted

    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(100, console.width)  # a log file has no width of its own
    prepare(run, console)
    folder, name = choose_checkpoint(given.run, config, given.checkpoint)
    with files.replacing(target) as out, advised():
        data = passes.open_data(run)
        saved = read_checkpoint(folder, name, given.load_unsafe_pickle)
        looked = passes.evaluate(run, data, saved, given.sizes, given.flip, console)
        images, result = build.image_dataset(data.evaluation), looked[config.eval_dataset.crop_size]
        names = images.classes or [str(label) for label in range(config.model.num_classes)]
        found = figures.findings(result, names)
        about = redacted({"checkpoint": f"{folder}/{name}", "data": config.eval_dataset.path, "size": result.size})
        worst = gallery.collect(images, found, figures.mistakes(result, given.gallery))
        with files.explained(target):
            files.write_tables(out, found, looked.values())
            if worst:
                gallery.draw(worst, called, found, about).save(out / "mistakes.png")
            files.write_summary(out, found, about)
    printing.show(console, found, looked, f"{called}, {name}")
    left = [name for name in files.FILES if (target / name).exists()]
    console.print(f"written: {target}/ ({', '.join(left)})", markup=False)
    return 0


def prepare(run: Run, console: Console) -> None:
    """Choose the device, and a precision that it can compute in."""
    import torch

    from training import devices

    signal.signal(signal.SIGINT, signal.default_int_handler)  # Composer's exits without a word
    trained = run.config.precision
    if not torch.cuda.is_available():
        run.config.precision = None
    devices.prepare(run)
    if trained not in (None, run.machine.precision):
        console.print(f"evaluated in {run.machine.precision}: the run's {trained} needs a GPU", markup=False)


def run(argv: Sequence[str] | None = None) -> int:
    """`main`, with a sentence in place of a traceback where the mistake is the user's."""
    return command.run(main, argv, stopped="stopped; nothing was written")


if __name__ == "__main__":
    sys.exit(run())
