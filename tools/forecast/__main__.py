"""Forecast a run: hours, dollars, and the time waiting for data.

    python -m tools.forecast yamls/digits.yaml --check            # forecasts, trains for real, prints both
    python -m tools.forecast yamls/resnet50.yaml --recipes mild,medium,hot train_dataset.path=... eval_dataset.path=...
    composer -n 8 -m tools.forecast yamls/resnet50.yaml recipe_name=mild --machine p4d.24xlarge ...
    python -m tools.forecast yamls/resnet50.yaml train_dataset.storage=synthetic eval_dataset.storage=synthetic

Times a few dozen steps at each image size of the schedule, the loader alone, a few batches of an evaluation and one
checkpoint, on the devices that it is started on, through the run's own Trainer, loaders and algorithms; the schedule
gives how often each happens. No file is left behind. Random images (synthetic) are counted as ImageNet's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import command
from config import ConfigError, Run, TrainingError, check_world, load
from config.read import ROOT
from config.world import world
from loaders.storage.kinds import KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from tools.forecast.arithmetic import Forecast

NO_DATA = next(name for name, kind in KINDS.items() if not kind.reads_path)
WITHOUT_DATA = f"to forecast without any, type train_dataset.storage={NO_DATA} eval_dataset.storage={NO_DATA}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for impossible options."""
    parser = command.parser("tools.forecast", __doc__)
    add = parser.add_argument
    add("words", nargs="+", metavar="ARG", help="a run's YAML and key=value arguments")
    add("--recipes", help="comma-separated, as in mild,medium,hot (default: the run's own)")
    add("--steps", type=int, default=30, help="timed steps at each size, at least (default: %(default)s)")
    paid = parser.add_mutually_exclusive_group()
    paid.add_argument("--price", type=float, help="dollars per hour of all devices (with --scale: of the scaled ones)")
    paid.add_argument("--machine", metavar="NAME", help="machine in launch/prices.yaml whose price to use")
    add("--scale", metavar="NxGPU", help="as in 8xA100: extrapolate by the vendors' peak FLOP/s; needs a GPU")
    add("--check", action="store_true", help="train for real too, and compare")
    given = parser.parse_intermixed_args(argv)
    problems = []
    if given.steps < 1:
        problems.append(f"--steps: {given.steps} given, but it must be at least 1; --steps 30 is usual")
    if given.recipes is not None and not all(given.recipes.split(",")):
        problems.append(f"--recipes: {given.recipes!r} given, but it must be comma-separated names, as in mild,medium")
    if given.check and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("--check: trains in one process; start it as python -m tools.forecast")
    if problems:
        raise ConfigError(*problems)
    return given


def load_runs(given: argparse.Namespace) -> dict[str, Run]:
    """Return the runs to forecast, all checked, by the names of their recipes."""
    if given.recipes is None:
        run = load_run(given.words)
        return {Path(run.recipe_name).stem: run}
    words = [word for word in given.words if not word.startswith("recipe_name=")]
    return {Path(name).stem: load_run([*words, f"recipe_name={name}"]) for name in given.recipes.split(",")}


def load_run(words: list[str]) -> Run:
    """Return a run without trackers that starts from scratch; the ConfigError has advice on how to do without data."""
    try:
        run = load(words)
    except ConfigError as error:
        about_data = any("_dataset.path" in problem for problem in error.problems)
        raise ConfigError(*error.problems, *([WITHOUT_DATA] if about_data else [])) from None
    config = run.config
    if not config.is_train:
        raise ConfigError("is_train: false only evaluates, and a forecast is of training; set is_train=true")
    config.loggers, config.autoresume, config.load_path, config.model.weights = {}, False, None, None
    check_world(config, *world())
    return run


def main(argv: Sequence[str]) -> int:
    """Measure and print; return 0."""
    began = time.monotonic()
    given = parse(argv)
    runs = load_runs(given)

    # Imported late: torch takes seconds, and mistakes are reported before.
    from composer.utils import dist
    from rich.console import Console

    from tools.forecast import tables
    from training import devices

    for run in runs.values():
        devices.prepare(run)
    outlook = tables.Outlook(given, next(iter(runs.values())))
    imports = time.monotonic() - began
    console = Console(soft_wrap=True, markup=False, quiet=dist.get_global_rank() > 0)
    console.width = max(100, console.width)
    forecasts, real = [], []
    for name, run in runs.items():
        forecasts.append(forecast_run(run, name, given.steps, imports, real=given.check, console=console))
        if given.check:  # right after its forecast: the load of a shared machine changes
            console.print(f"training {name}", highlight=False)
            real.append(train(run))
    outlook.show(forecasts, console)
    for line in tables.bottlenecks(forecasts):
        console.print(line, highlight=False)
    if given.check:
        console.print(tables.comparison(forecasts, real))
    return 0


def forecast_run(run: Run, name: str, steps: int, imports: float, *, real: bool, console: Console) -> Forecast:
    """Measure one recipe's prepared run and return its forecast, with FLOPs if the peak of the devices is known.

    `imports`: seconds until now, which a run takes too. `real`: as for `plan_of`.
    """
    from composer.utils import dist

    from tools.forecast.arithmetic import Forecast, plan_of
    from tools.forecast.machines import flops_per_image, peak_of
    from tools.forecast.measure import Bench

    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        bench = Bench(run, steps, Path(folder))
        try:
            plan = plan_of(run.config, name, *bench.images, real=real)
            measured = bench.measure(
                list(plan.batches), imports, lambda what: console.print(f"timing {name}: {what}", highlight=False)
            )
        finally:
            bench.trainer.close()
            del bench
            gc.collect()  # ends the loader's workers, and frees the device's memory for the next run
    peak = peak_of(run)
    if peak is None:
        return Forecast(plan, measured)
    flops = 0.0
    for size, count in plan.batches.items():
        data = replace(run.config.train_dataset, crop_size=size)
        flops += plan.batch_size * count * flops_per_image(replace(run.config, train_dataset=data))
    return Forecast(plan, measured, flops, peak * dist.get_world_size())


def train(run: Run) -> dict[str, Any]:
    """Train a run by its command line, in a temporary folder, and return its summary; TrainingError if it fails."""
    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        own = [f"runs_folder={folder}", "run_name=real", "load_path=null"]
        own += [f"save_folder={folder}/real/checkpoints"] if run.config.save_folder else []
        words = [sys.executable, str(ROOT / "main.py"), *run.argv, *own]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise TrainingError(f"the run itself failed with {done.returncode}: {lines[-1] if lines else 'no output'}")
        return json.loads((Path(folder) / "real" / "summary.json").read_text())


if __name__ == "__main__":
    sys.exit(command.run(main))
