"""Time the pieces of a run on this machine, through main.py's own Trainer; record and save into a scratch folder."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from common.durations import parse
from common.folders import open_folder
from config import Run
from config.schema import Config, Dataset
from loaders.sampler import endless
from loaders.storage.kinds import kind_of
from loaders.workers import WorkerLoader
from recipes.algorithms._base import ours
from tools.forecast.arithmetic import Measured, Pace
from training import build, checkpoints, guards, record
from training.data_wait import DataWait, advice
from training.fit import make_trainer
from training.recorder import Recorder

WARM_UP = 3  # untimed steps at each size; more if the workers hold more batches ready
SHORTEST_LAP = 5  # steps
RARE = 50  # steps; what an algorithm does less often costs little per step
EVAL_BATCHES = 12  # of an evaluation, unless it has fewer
SAVES = 3
LONGEST_LOADING = 15.0  # seconds, for the loader alone at one size


@dataclass(frozen=True)
class Step:
    """Seconds of one step, of which `waited` for data, and whether its batch was a loader's first."""

    seconds: float
    waited: float
    is_first: bool


class Clock(Callback):
    """Records the time of each training step, and when each batch of an evaluation was done.

    A step's time is the host's. A GPU lags behind, so it is waited for at the end of each lap of `lap` steps, the first
    of which starts after `warm_up` steps of a fit: a lap is exact.
    """

    def __init__(self, loader: WorkerLoader, on_gpu: bool, warm_up: int, lap: int) -> None:
        self.loader, self.on_gpu, self.warm_up, self.lap = loader, on_gpu, warm_up, lap
        self.steps: list[Step] = []  # of the last fit
        self.marks: list[float] = []  # of the last evaluation: its start, the end of each batch, its end
        self._is_first, self._began, self._waited = True, 0.0, 0.0

    def fit_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Forget the steps of the previous fit."""
        self.steps, self._is_first = [], True

    def epoch_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Expect a batch for which the loader has nothing ready."""
        self._is_first = True

    def before_dataloader(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Start a step, by waiting for data."""
        self._began, self._waited = time.perf_counter(), self.loader.waited

    def batch_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """End a step."""
        now = self._now((len(self.steps) + 1 - self.warm_up) % self.lap == 0)
        self.steps.append(Step(now - self._began, self.loader.waited - self._waited, self._is_first))
        self._is_first = False

    def eval_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Start an evaluation."""
        self.marks = [self._now(True)]

    def eval_batch_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """End a batch of it, or the whole."""
        self.marks.append(self._now(True))

    eval_end = eval_batch_end

    def _now(self, wait_for_device: bool) -> float:
        if self.on_gpu and wait_for_device:
            torch.cuda.synchronize()
        return time.perf_counter()


def pace_of(steps: list[Step], lap: int, loading: float | None) -> Pace:
    """Return the pace of the median of whole laps, without the wait for an epoch's first batch."""
    laps = []
    for at in range(0, len(steps), lap):
        inside = steps[at : at + lap]
        late = sum(step.waited for step in inside if step.is_first)
        seconds = (sum(step.seconds for step in inside) - late) / lap
        laps.append((seconds, (sum(step.waited for step in inside) - late) / lap))
    return Pace(*statistics.median_low(laps), loading)


def evaluation_of(marks: list[float], loading: float | None, waited: float) -> tuple[Pace, float]:
    """Return the pace of an evaluation's batches, and the seconds beyond them.

    `marks` are Clock's, of at least one batch; `loading` is in seconds per batch, `waited` the total in seconds.
    """
    began, *done, ended = marks
    seconds = (done[-1] - done[0]) / (len(done) - 1) if len(done) > 1 else ended - began
    beyond = max(0.0, ended - began - len(done) * seconds)
    return Pace(seconds, min(seconds, max(0.0, waited - beyond) / len(done)), loading), beyond


def lap_of(config: Config, workers: int) -> int:
    """Return the steps of a lap, which holds every periodic action of the recipe as often as the run does.

    SAM's every tenth step takes twice as long; and workers that started together deliver together.
    """
    intervals = [args[key] for args in config.algorithms.values() for key in args if key.endswith("interval")]
    steps = [interval if isinstance(interval, int) else _batches(interval) for interval in intervals]
    period = math.lcm(*(number for number in steps if 1 < number <= RARE))
    return period * math.ceil(max(SHORTEST_LAP, workers) / period)


def _batches(interval: str | None) -> int:
    duration = parse(interval or "1ba")
    return int(duration.value) if duration.unit == "ba" else 1


class Bench:
    """One recipe's prepared run, built up to its first step, in an empty folder; `steps` rounds up to whole laps."""

    def __init__(self, run: Run, steps: int, folder: Path) -> None:
        torch.compiler.reset()
        self.began, self.run, self.folder = time.monotonic(), run, folder
        self.algorithms = build.algorithms(run.config)
        self.data = build.data(run, self.algorithms)
        assert self.data.train is not None
        self.loader, self.eval_loader = build.loader_of(self.data.train), build.loader_of(self.data.evaluation)
        lap = lap_of(run.config, self.loader.num_workers)
        self.steps = lap * math.ceil(steps / lap)
        ready = self.loader.num_workers * (self.loader.prefetch_factor or 0)
        self.clock = Clock(self.loader, run.machine.device == "gpu", max(WARM_UP, ready), lap)
        model, schedule = build.model(run.config), build.schedule(run, self.data)
        checks = [guard for guard in guards.for_run(schedule, self.data) if not isinstance(guard, guards.WholeEpochs)]
        recorder = Recorder(record.RunFolder(folder / "run", run), self.began, DataWait(None))
        self.trainer = make_trainer(
            run,
            run_name="forecast",
            model=model,
            data=self.data,
            optimizers=build.optimizer(run.config, model),
            max_duration=schedule.max_duration,
            algorithms=self.algorithms,
            callbacks=[*checks, recorder, self.clock],
            saved=None,
        )
        self.evaluators = list(self.trainer.state.evaluators)
        self.trainer.state.evaluators = []

    def measure(self, sizes: list[int], imports: float, progress: Callable[[str], None]) -> Measured:
        """Time everything at these image sides (pixels, in the schedule's order); a run takes `imports` seconds too."""
        self._hold(sizes[0])
        self.trainer.fit(duration="1ba")
        start_up = imports + time.monotonic() - self.began
        steps, first_waits, new_size = {}, [], 0.0
        for size in sizes:
            progress(f"{self.steps} steps at {size} px")
            steps[size], wait, settling = self._at(size)
            first_waits.append(wait)
            new_size += settling if size != sizes[0] else 0.0
        progress("an evaluation and a checkpoint")
        evaluation, evaluation_start = self._evaluate()
        return Measured(
            steps=steps,
            evaluation=evaluation,
            evaluation_start=evaluation_start,
            start_up=start_up,
            new_size=new_size,
            epoch_start=statistics.median(first_waits),
            save=self._save() if self.run.config.save_folder else 0.0,
            advice=advice(self.loader, self.run.config.train_dataset.storage),
        )

    @property
    def images(self) -> tuple[int, int]:
        """Number of images in the training set and in the evaluation set."""
        return len(self.loader.dataset), self.data.eval_samples  # type: ignore[arg-type]

    def _hold(self, size: int) -> None:
        for algorithm in ours(self.algorithms):
            algorithm.held = size

    def _at(self, size: int) -> tuple[Pace, float, float]:
        """Return the pace at a size, the wait for the first batch, and the seconds of the warm-up beyond the pace."""
        self._hold(size)
        lap, warm_up = self.clock.lap, self.clock.warm_up
        loading = self._loading(self.loader, self.run.config.train_dataset, lap)
        self.trainer.fit(duration=f"{warm_up + self.steps}ba")
        before, timed = self.clock.steps[:warm_up], self.clock.steps[warm_up:]
        pace = pace_of(timed, lap, loading)
        took = sum(step.seconds - (step.waited if step.is_first else 0.0) for step in before)
        return pace, before[0].waited, max(0.0, took - warm_up * pace.seconds)

    def _loading(self, loader: WorkerLoader, data: Dataset, batches: int) -> float | None:
        """Return the seconds per batch of a loader alone, after each worker's first; None for random images."""
        if not kind_of(data.storage).reads_path:
            return None
        supply = endless(loader)
        for _ in range(max(1, loader.num_workers)):
            next(supply)
        began, done = time.perf_counter(), 0
        while done < 2 * batches and (done < batches or time.perf_counter() - began < LONGEST_LOADING):
            next(supply)
            done += 1
        return (time.perf_counter() - began) / done

    def _evaluate(self) -> tuple[Pace, float]:
        """Return the pace of an evaluation's batches, and the seconds beyond them."""
        loader = self.eval_loader
        self.trainer.state.evaluators = self.evaluators
        self.trainer.eval(subset_num_batches=1)  # the workers start, cuDNN searches
        waited, batches = loader.waited, min(len(loader), EVAL_BATCHES)
        self.trainer.eval(subset_num_batches=batches)
        waited = loader.waited - waited
        loading = self._loading(loader, self.run.config.eval_dataset, batches)
        return evaluation_of(self.clock.marks, loading, waited)

    def _save(self) -> float:
        folder, took = open_folder(str(self.folder / "checkpoints")), []
        for _ in range(SAVES):
            began = time.perf_counter()
            checkpoints.save(self.trainer.state, folder, "forecast.pt")
            took.append(time.perf_counter() - began)
        return statistics.median(took)
