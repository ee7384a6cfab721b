"""A callback that times each step of training and each batch of an evaluation."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from loaders.workers import WorkerLoader
from tools.forecast.arithmetic import Pace


@dataclass(frozen=True)
class Step:
    """Seconds of one step, those of them spent waiting for data, and whether its batch was a loader's first."""

    seconds: float
    waited: float
    is_first: bool


class Clock(Callback):
    """Notes what each step took, and when each batch of an evaluation was done.

    A step's time is the host's; on a GPU, which lags behind, it is exact over a lap, at whose end the device is waited
    for.

    Args:
        loader: the training data.
        on_gpu: whether the device has to be waited for.
        warm_up: steps of each fit before its first lap.
        lap: steps of a lap.
    """

    def __init__(self, loader: WorkerLoader, on_gpu: bool, warm_up: int, lap: int) -> None:
        self.loader, self.on_gpu, self.warm_up, self.lap = loader, on_gpu, warm_up, lap
        self.steps: list[Step] = []
        """Of the last fit."""
        self.marks: list[float] = []
        """Of the last evaluation: when it began, when each batch was done, when it ended."""
        self._is_first, self._began, self._waited = True, 0.0, 0.0

    def fit_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Forget the steps of the fit before."""
        self.steps, self._is_first = [], True

    def epoch_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """The loader has nothing ready for the next batch."""
        self._is_first = True

    def before_dataloader(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """A step begins, by waiting for data."""
        self._began, self._waited = time.perf_counter(), self.loader.waited

    def batch_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """A step has ended."""
        now = self._now((len(self.steps) + 1 - self.warm_up) % self.lap == 0)
        self.steps.append(Step(now - self._began, self.loader.waited - self._waited, self._is_first))
        self._is_first = False

    def eval_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """An evaluation begins."""
        self.marks = [self._now(True)]

    def eval_batch_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """A batch of it is done."""
        self.marks.append(self._now(True))

    def eval_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """It is over."""
        self.marks.append(self._now(True))

    def _now(self, wait_for_device: bool) -> float:
        if self.on_gpu and wait_for_device:
            torch.cuda.synchronize()
        return time.perf_counter()


def pace_of(steps: list[Step], lap: int, loading: float | None) -> Pace:
    """That of the lap in the middle of whole laps; what the first batch of an epoch is waited for, is not in it."""
    laps = []
    for at in range(0, len(steps), lap):
        part = steps[at : at + lap]
        late = sum(step.waited for step in part if step.is_first)
        seconds = (sum(step.seconds for step in part) - late) / lap
        laps.append((seconds, (sum(step.waited for step in part) - late) / lap))
    return Pace(*statistics.median_low(laps), loading)


def evaluation_of(marks: list[float], loading: float | None, waited: float) -> tuple[Pace, float]:
    """The pace of an evaluation's batches, and what it takes besides them.

    Args:
        marks: as Clock has them, of at least one batch.
        loading: seconds per batch of its loader alone.
        waited: seconds waited for data in all.
    """
    began, *done, ended = marks
    seconds = (done[-1] - done[0]) / (len(done) - 1) if len(done) > 1 else ended - began
    beside = max(0.0, ended - began - len(done) * seconds)
    return Pace(seconds, min(seconds, max(0.0, waited - beside) / len(done)), loading), beside
