"""Forecast a run: hours, dollars, and the time waiting for data.

    python -m tools.forecast yamls/digits.yaml --check            # forecasts, trains for real, prints both
    python -m tools.forecast yamls/resnet50.yaml --recipes mild,medium,hot train_dataset.path=... eval_dataset.path=...
    composer -n 8 -m tools.forecast yamls/resnet50.yaml recipe_name=mild --machine p4d.24xlarge ...
    python -m tools.forecast yamls/resnet50.yaml train_dataset.storage=synthetic eval_dataset.storage=synthetic

Times a few dozen steps at each image size of the schedule, the loader alone, a few batches of an evaluation and one
checkpoint, on the devices that it is started on, through the run's own Trainer, loaders and algorithms; the schedule
says how often each happens. Nothing is left behind. Random images (synthetic) are counted as ImageNet's.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from config import ConfigError, Run, check_world, load
from recipes.topologies import check_topology

if TYPE_CHECKING:
    from rich.console import Console

    from tools.forecast.arithmetic import Forecast

WITHOUT_DATA = "to forecast without any, type train_dataset.storage=synthetic eval_dataset.storage=synthetic"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: for options that cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.forecast", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", help="a run's YAML and key=value words")
    parser.add_argument("--recipes", help="as in mild,medium,hot; by default the run's own")
    parser.add_argument(
        "--steps", type=int, default=30, help="timed steps at each size, at least (default: %(default)s)"
    )
    paid = parser.add_mutually_exclusive_group()
    paid.add_argument("--price", type=float, help="dollars per hour of all devices; with --scale, of those")
    paid.add_argument("--machine", metavar="NAME", help="one of launch/prices.yaml, whose price counts")
    parser.add_argument("--scale", metavar="NxGPU", help="as in 8xA100: extrapolate, by the makers' peaks; needs a GPU")
    parser.add_argument("--check", action="store_true", help="train for real too, and compare")
    given = parser.parse_intermixed_args(argv)
    problems = []
    if given.steps < 1:
        problems.append(f"--steps: {given.steps} given, but at least 1 is timed; --steps 30 is usual")
    if given.recipes is not None and not all(given.recipes.split(",")):
        problems.append(f"--recipes: {given.recipes!r} given, but it is names with commas between, as in mild,medium")
    if given.check and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("--check: trains in one process; start it as python -m tools.forecast")
    if problems:
        raise ConfigError(*problems)
    return given


def load_runs(given: argparse.Namespace) -> dict[str, Run]:
    """The runs to forecast, by the names of their recipes, all checked.

    Raises:
        ConfigError: as a run of it would be refused, and how to do without data.
    """
    if given.recipes is None:
        run = load_run(given.words)
        return {Path(run.config.recipe_name or "baseline").stem: run}
    words = [word for word in given.words if not word.startswith("recipe_name=")]
    return {Path(name).stem: load_run([*words, f"recipe_name={name}"]) for name in given.recipes.split(",")}


def load_run(words: list[str]) -> Run:
    """A run that saves nowhere, tells no tracker, and starts anew."""
    try:
        run = load(words)
    except ConfigError as error:
        about_data = any("_dataset.path" in problem for problem in error.problems)
        raise ConfigError(*error.problems, *([WITHOUT_DATA] if about_data else [])) from None
    config = run.config
    if not config.is_train:
        raise ConfigError("is_train: false only evaluates, and a forecast is of training; say is_train=true")
    config.loggers, config.autoresume, config.load_path = {}, False, None
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    check_world(config, world_size)
    check_topology(config, world_size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0."""
    began = time.monotonic()
    given = parse(argv)
    runs = load_runs(given)

    # torch takes seconds to import: a mistake is answered before.
    from composer.utils import dist
    from rich.console import Console

    from tools.forecast import check, tables
    from tools.forecast.outlook import Outlook
    from training import devices

    for run in runs.values():
        devices.prepare(run)
    outlook = Outlook.of(given, next(iter(runs.values())))
    imports = time.monotonic() - began
    console = Console(soft_wrap=True, markup=False, quiet=dist.get_global_rank() > 0)
    console.width = max(100, console.width)
    forecasts, real = [], []
    for name, run in runs.items():
        forecasts.append(forecast_run(run, name, given.steps, imports, real=given.check, console=console))
        if given.check:  # at once: a machine that others use is another one later
            console.print(f"training {name}", highlight=False)
            real.append(check.train(run))
    outlook.show(forecasts, console)
    for line in tables.bottlenecks(forecasts):
        console.print(line, highlight=False)
    if given.check:
        console.print(check.comparison(forecasts, real))
    return 0


def forecast_run(run: Run, name: str, steps: int, imports: float, *, real: bool, console: Console) -> Forecast:
    """Measure one recipe, and do its sums.

    Args:
        run: from load_run, prepared (training.devices).
        name: its recipe's.
        steps: timed at each size, at least.
        imports: seconds until now, which a run takes too.
        real: count random images as what they are, and not as ImageNet's.
        console: told what is being timed.
    """
    from tools.forecast.measure import Bench
    from tools.forecast.outlook import forecast_of
    from tools.forecast.plan import counted

    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        bench = Bench(run, steps, Path(folder))
        try:
            plan = counted(run.config, name, *bench.images, real=real)
            measured = bench.measure(
                list(plan.batches), imports, lambda what: console.print(f"timing {name}: {what}", highlight=False)
            )
        finally:
            bench.close()
            del bench
            gc.collect()  # the workers end with their loader, and the device's memory is the next one's
    return forecast_of(run, plan, measured)


if __name__ == "__main__":
    sys.exit(command.run(main))
