"""Compare a training step with a hand-written loop: img/s, MFU.

    python -m benchmarks.step yamls/digits.yaml                  # on a CPU, a minute
    python -m benchmarks.step yamls/digits.yaml --input real     # loading included
    python -m benchmarks.step yamls/resnet50.yaml compile=true train_dataset.batch_size=256 \\
        --recipes baseline,mild,medium,hot --sizes 96,128,176,224

Both sides have the same model, precision, memory format and input: uint8 images, channels_last, copied to the device
asynchronously and normalized there. The hand-written loop trains without a recipe; ours has the recipe's loss,
optimizer and algorithms, except those that change the image size, because a row has one size. A round is timed as a
whole after warm-up steps. The sides take turns in one process, and ratios are computed within a turn, so that a slow
moment of the machine slows both.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, DataSpec, get_precision_context
from composer.trainer import Trainer
from rich.table import Column, Table

from common.terminal import console
from config import Run, load
from data import split_batch
from loaders.images.transforms import NormalizationFn
from loaders.sampler import endless
from recipes.declared import declarations
from tools.forecast.machines import device_name, flops_per_image, peak_of
from training import build, devices, guards, record
from training.data_wait import DataWait
from training.fit import make_trainer
from training.progress import ProgressLine
from training.recorder import Recorder

WARM_UP = 3  # minimum steps per round before the timing starts


@dataclass(frozen=True)
class Row:
    """One recipe at one size: medians over the rounds, and our time relative to the hand-written loop's per round."""

    recipe: str
    size: int
    by_hand: float  # img/s
    ours: float  # img/s
    ratios: list[float]
    mfu_by_hand: float | None  # None if the device's peak is unknown
    mfu_ours: float | None

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        rates = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in (self.by_hand, self.ours)]
        mfu = ["-" if share is None else f"{share:.1%}" for share in (self.mfu_by_hand, self.mfu_ours)]
        ratio = f"{statistics.median(self.ratios):.3f} ({min(self.ratios):.3f}-{max(self.ratios):.3f})"
        return [self.recipe, str(self.size), *rates, ratio, *mfu]


class Epoch:
    """The number of images of an epoch, which is all that a run asks of these data sets."""

    def __init__(self, epoch_size: int) -> None:
        self.epoch_size = epoch_size

    def __len__(self) -> int:
        return self.epoch_size


class Batches:
    """Random batches like our loader's, the same few repeated: uint8, channels_last, pinned for a GPU."""

    def __init__(self, run: Run) -> None:
        config = run.config
        self.batch_size, size = config.train_dataset.batch_size, config.train_dataset.crop_size
        self.dataset = Epoch(1000 * self.batch_size)
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, size, size, 3)
        self.batches = []
        for _ in range(2):
            images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
            labels = torch.randint(0, config.model.classes, (self.batch_size,), generator=generator)
            pinned = run.machine.device == "gpu"
            self.batches.append((images.pin_memory(), labels.pin_memory()) if pinned else (images, labels))

    def __len__(self) -> int:
        return 1000

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return itertools.islice(itertools.cycle(self.batches), len(self))


class Stopwatch(Callback):
    """Measure the seconds per step of each round after its warm-up, synchronizing the device at both ends.

    Args:
        device: cpu or gpu.
        warm_up: steps before the timing starts.
        steps: timed steps.
    """

    def __init__(self, device: str, warm_up: int, steps: int) -> None:
        self.device, self.warm_up, self.steps = device, warm_up, steps
        self.done, self.started, self.seconds = 0, 0.0, 0.0

    def step(self) -> None:
        """Count a step."""
        self.done += 1
        if self.done in (self.warm_up, self.warm_up + self.steps):
            if self.device == "gpu":
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.started, self.seconds = now, (now - self.started) / self.steps

    def lap(self) -> float:
        """Return the finished round's seconds per step, and start a new round."""
        assert self.done == self.warm_up + self.steps, f"{self.done} steps"
        self.done = 0
        return self.seconds

    def batch_end(self, state, logger) -> None:
        """Count a step of the Trainer."""
        self.step()


def make_data(run: Run, algorithms: list[Any], real: bool) -> build.Data:
    """Return the run's own data, or random batches."""
    if real:
        return build.data(run, algorithms)
    spec = DataSpec(Batches(run), microbatch_transforms=NormalizationFn(), split_batch=split_batch)
    return build.Data(spec, spec)


def stopwatch(run: Run, loader: Any, steps: int) -> Stopwatch:
    """Build a stopwatch whose warm-up uses up the batches that the workers prefetched before the round."""
    ready = getattr(loader, "num_workers", 0) * (getattr(loader, "prefetch_factor", None) or 0)
    return Stopwatch(run.machine.device, max(WARM_UP, ready), steps)


def hand_written(run: Run, steps: int, real: bool) -> Iterator[float]:
    """Yield each round's seconds per step in a hand-written training loop."""
    config = run.config
    loader = make_data(run, [], real).train.dataloader  # type: ignore[union-attr]
    device, normalize = torch.device("cuda" if run.machine.device == "gpu" else "cpu"), NormalizationFn()
    model = build.model(config).to(device).train()
    optimizer = build.optimizer(config, model)
    scaler = torch.amp.GradScaler(enabled=run.machine.precision == "amp_fp16")
    forward = torch.compile(model) if run.machine.compile else model
    watch = stopwatch(run, loader, steps)
    while True:
        for batch in itertools.islice(endless(loader), watch.warm_up + steps):
            images, labels = normalize(tuple(tensor.to(device, non_blocking=True) for tensor in batch))
            optimizer.zero_grad(set_to_none=True)
            with get_precision_context(run.machine.precision):
                loss = model.loss(forward((images, labels)), (images, labels))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            watch.step()
        yield watch.lap()


def through_trainer(run: Run, steps: int, real: bool, folder: Path) -> Iterator[float]:
    """Yield each round's seconds per step in main.py's Trainer, without saving or evaluating."""
    config = run.config
    algorithms = build.algorithms(config)
    data, model = make_data(run, algorithms, real), build.model(config)
    watch = stopwatch(run, data.train.dataloader, steps)  # type: ignore[union-attr]
    schedule = build.schedule(run, data)
    checks = [guard for guard in guards.for_run(schedule, data) if not isinstance(guard, guards.WholeEpochs)]
    recorder = Recorder(record.RunFolder(folder, run), time.monotonic(), DataWait(None))
    trainer: Trainer = make_trainer(
        run,
        run_name="bench",
        model=model,
        data=data,
        optimizers=build.optimizer(config, model),
        max_duration=schedule.max_duration,
        algorithms=algorithms,
        callbacks=[*checks, recorder, ProgressLine(recorder, bar=False), watch],
        saved=None,
    )
    trainer.state.evaluators = []
    try:
        while True:
            trainer.fit(duration=f"{watch.warm_up + steps}ba")
            yield watch.lap()
    finally:
        trainer.close()


def compare(bare: Run, runs: list[Run], given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Yield a row per recipe, all at one size and relative to the same hand-written rounds."""
    torch.compiler.reset()  # otherwise a second size would compile with dynamic shapes
    real, size, batch = given.input == "real", bare.config.train_dataset.crop_size, bare.config.train_dataset.batch_size
    sides = [hand_written(bare, given.steps, real)]
    sides += [through_trainer(run, given.steps, real, folder / f"{size}-{at}") for at, run in enumerate(runs)]
    for side in sides:
        next(side)  # compilation, allocation, cuDNN's search
    by_hand, *all_ours = zip(*[[next(side) for side in sides] for _ in range(given.rounds)], strict=True)
    for side in sides:
        side.close()  # type: ignore[attr-defined]
    work = batch * flops_per_image(bare.config)
    hand = statistics.median(by_hand)
    for run, laps in zip(runs, all_ours, strict=True):
        ours = statistics.median(laps)
        mfu = [work / seconds / peak if (peak := peak_of(bare)) else None for seconds in (hand, ours)]
        ratios = [b / a for a, b in zip(by_hand, laps, strict=True)]
        name = Path(run.recipe_name).stem
        yield Row(name, size, batch / hand, batch / ours, ratios, *mfu)


def load_run(given: argparse.Namespace, recipe: str | None, size: int | None) -> Run:
    """Load and prepare the run given on the command line, with another recipe and size."""
    words = [word for word in given.words if not word.startswith("recipe_name=")]
    words += [f"recipe_name={recipe}"] if recipe else []
    words += [f"train_dataset.crop_size={size}"] if size else []
    if given.input == "synthetic":
        words += ["train_dataset.path=.", "eval_dataset.path=."]  # required, but not read
    run = load(words)
    devices.prepare(run)
    algorithms = run.config.algorithms
    fixed = {name: args for name, args in algorithms.items() if not declarations("algorithm", name).IMAGE_SIZE}
    run.config.algorithms = fixed
    return run


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", help="a run's YAML and key=value words")
    parser.add_argument("--input", choices=("synthetic", "real"), default="synthetic", help="real: the run's own data")
    parser.add_argument("--recipes", help="such as baseline,mild,medium,hot (default: the run's)")
    parser.add_argument("--sizes", help="image sizes in pixels, such as 96,176,224 (default: each recipe's crop size)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps per round (a multiple of SAM's interval)")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each side")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> list[Row]:
    """Print the table, and return its rows."""
    given = parse(argv)
    named = [word.partition("=")[2] for word in given.words if word.startswith("recipe_name=")]
    recipes = given.recipes.split(",") if given.recipes else [named[-1] if named else None]
    own = [load_run(given, recipe, None).config.train_dataset.crop_size for recipe in recipes]
    sizes = [int(size) for size in given.sizes.split(",")] if given.sizes else list(dict.fromkeys(own))
    heads = ["\nrecipe", "\npx", "hand\nimg/s", "Trainer\nimg/s", "time, Trainer/hand\nmedian (min-max)"]
    table = Table(*(Column(head, no_wrap=True) for head in (*heads, "hand\nMFU", "Trainer\nMFU")))
    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for size in sizes:
                here = [r for r, at in zip(recipes, own, strict=True) if given.sizes or at == size]
                bare = load_run(given, None, size)
                config = bare.config
                table.title = f"{config.model.name}, batch {config.train_dataset.batch_size}, "
                table.title += f"{bare.machine.precision}, compile={bare.machine.compile}, {given.input} input, "
                table.title += device_name(bare)
                for row in compare(bare, [load_run(given, r, size) for r in here], given, Path(folder)):
                    rows.append(row)
                    table.add_row(*row.cells())
    finally:  # an interrupted benchmark shows the sizes that it finished
        console().print(table)
    return rows


if __name__ == "__main__":
    main()
