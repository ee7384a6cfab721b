"""Show which classes and images a run gets wrong.

    python -m tools.evaluate runs/NAME
    python -m tools.evaluate runs/NAME --sizes 160,176,192,224,256,288 --checkpoint latest
    python -m tools.evaluate runs/NAME --data /data/another --no-flip -o elsewhere
    python -m tools.evaluate --model net.onnx --data /data/imagenet --resize 256 --crop 224 --mean 0.5 --std 0.5

Every image of val/ is evaluated once per size with the weights that main.py would evaluate, on a GPU or a CPU. The
loss is the mean softmax cross entropy, as val_loss in metrics.csv, also for a run that minimized the binary one. The
calibration error is the expected one, over 15 bins of equal width, in percentage points. With flip, the logits
of an image and its mirror image are averaged, and reported separately.

summary.json, per_class.csv, confusions.csv, sizes.csv, reliability.csv and mistakes.png go to runs/NAME/evaluation/.
--model evaluates a network from elsewhere instead of a run: ONNX, TorchScript or torch.export's pt2. What its file does
not say about its input must be given.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from common import command, terminal
from common.folders import check_folder
from common.whole_files import whole_group
from config import ConfigError, Run, UserError
from loaders.class_names import names_of
from recipes import networks
from tools.evaluate.choice import advised, check_file, choose_data, own_target
from tools.evaluate.options import parse
from tools.networks.runs import choose_checkpoint, load_run
from tools.records.classes import run_names

if TYPE_CHECKING:
    from tools.evaluate.results import Evaluated

ADVICE = "name another folder: -o FOLDER"


def main(argv: Sequence[str]) -> int:
    """Evaluate, write and print; return 0."""
    given = parse(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        what = f"--model {shlex.quote(str(given.model))}" if given.model else shlex.quote(str(given.run))
        raise ConfigError(f"this runs in one process; type: python -m tools.evaluate {what}")
    run = None if given.model else load_run(given.run, given.outside_code)
    target = given.out or own_target(given.model or given.run)
    if run:
        choose_data(run.config, given.data, given.local)
    else:
        check_file(given.model, given.data, given.local)
    check_folder(target, f"{target}:", ADVICE)

    # Imported late: torch takes seconds, and mistakes are reported before.
    from tools.evaluate import figures, files
    from tools.evaluate.model_files import evaluate_file
    from tools.evaluate.results import real_top1
    from training.secrets import redacted

    console = terminal.console()
    command.restore_ctrl_c()
    with advised():
        done = evaluate_run(run, given, console) if run else evaluate_file(given, console)
        names = names_of(done.classes, given.names) if given.names else done.names
        found = figures.findings(done.result, done.classes, names)
        about = redacted({"checkpoint": done.source, "data": done.data, "size": done.size})
        sheet = files.draw_mistakes(
            done.images, figures.mistakes(done.result, given.gallery), done.called, found, about
        )
    real = real_top1(done)
    try:
        with whole_group(target, files.FILES) as out:
            files.write_tables(out, found, done.passes.values())
            if sheet:
                sheet.save(out / "mistakes.png")
            files.write_summary(out, found, about | real)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); {ADVICE}") from error
    title = ", ".join(dict.fromkeys([done.called, Path(done.source).name]))
    files.show(console, found, done.passes, title, real)
    written = [name for name in files.FILES if (target / name).exists()]
    console.print(f"written: {target}/ ({', '.join(written)})")
    return 0


def evaluate_run(run: Run, given: argparse.Namespace, console: Console) -> Evaluated:
    """Evaluate a run's checkpoint on its data, or on --data."""
    from tools.evaluate import passes
    from tools.evaluate.results import Evaluated
    from training import build
    from training.saved import read_checkpoint

    config = run.config
    networks.check_sizes(config.model.name, config.eval_dataset.crop_size, given.sizes, "--sizes")
    prepare(run, console)
    folder, name = choose_checkpoint(given.run, config, given.checkpoint or "best")
    data = passes.open_data(run)
    saved = read_checkpoint(folder, name, given.load_unsafe_pickle)
    by_size = passes.evaluate(run, data, saved, given.sizes, given.flip, console)
    images = build.image_dataset(data.evaluation)
    classes = images.classes or [str(label) for label in range(config.model.classes)]
    return Evaluated(
        called=given.run.resolve().name,
        source=f"{folder}/{name}",
        data=config.eval_dataset.path or "",
        images=images,
        classes=classes,
        names=run_names(given.run, classes, images.class_names),
        passes=by_size,
        size=config.eval_dataset.crop_size,
    )


def prepare(run: Run, console: Console) -> None:
    """Choose the device, and a precision that it supports."""
    import torch

    from training import devices

    trained = run.config.precision
    if not torch.cuda.is_available():
        run.config.precision = None
    devices.prepare(run)
    if trained not in (None, run.machine.precision):
        console.print(f"evaluated in {run.machine.precision}: the run's {trained} needs a GPU")


run = partial(command.run, main, stopped="stopped; nothing was written")

if __name__ == "__main__":
    sys.exit(run())
