"""From what the pieces of a run take to what the run takes: hours, waiting, dollars."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tools.forecast.plan import Plan


@dataclass(frozen=True)
class Pace:
    """Seconds per batch.

    Attributes:
        seconds: from one batch's end to the next one's, waiting for data included.
        waited: how much of that the trainer waited for its loader.
        loading: what the loader takes when nothing else is done; None where nothing is loaded.
    """

    seconds: float
    waited: float = 0.0
    loading: float | None = None

    def elsewhere(self, compute: float, loaders: float) -> Pace:
        """The pace of a machine that computes and loads so many times as fast; the slower of both decides."""
        computing = (self.seconds - self.waited) / compute
        loading = None if self.loading is None else self.loading / loaders
        seconds = max(computing, loading or 0.0)
        return Pace(seconds, seconds - computing, loading)


@dataclass(frozen=True)
class Measured:
    """What the pieces of one recipe's run take, in seconds.

    Attributes:
        steps: image side in pixels -> the pace of training at it.
        evaluation: the pace of an evaluation's batches.
        evaluation_start: what an evaluation takes besides its batches.
        start_up: from the command to the end of the first step.
        new_size: what the first steps at all other sizes take beyond their pace: compilation, cuDNN's search.
        epoch_start: an epoch's wait for its first batch, whose loader has nothing ready yet.
        save: one checkpoint.
        advice: the next setting to change where data are the bottleneck.
    """

    steps: dict[int, Pace]
    evaluation: Pace
    evaluation_start: float = 0.0
    start_up: float = 0.0
    new_size: float = 0.0
    epoch_start: float = 0.0
    save: float = 0.0
    advice: str = ""

    def elsewhere(self, compute: float, loaders: float) -> Measured:
        """The same on a machine that computes and loads so many times as fast; what happens once stays as it is."""
        steps = {size: pace.elsewhere(compute, loaders) for size, pace in self.steps.items()}
        evaluation = self.evaluation.elsewhere(compute, loaders)
        return replace(self, steps=steps, evaluation=evaluation, epoch_start=self.epoch_start / loaders)


@dataclass(frozen=True)
class Forecast:
    """What one recipe's run takes.

    Attributes:
        plan: what the run consists of.
        measured: what its pieces take.
        flops: floating-point operations of all its training steps; None where no peak is there to compare them with.
        peak: FLOP/s of all devices together, by their maker.
    """

    plan: Plan
    measured: Measured
    flops: float | None = None
    peak: float | None = None

    @property
    def training(self) -> float:
        """Seconds of training, waiting for data included."""
        steps = sum(count * self.measured.steps[size].seconds for size, count in self.plan.batches.items())
        return steps + self.plan.epochs * self.measured.epoch_start

    @property
    def waiting(self) -> float:
        """Of these, seconds of waiting for data."""
        steps = sum(count * self.measured.steps[size].waited for size, count in self.plan.batches.items())
        return steps + self.plan.epochs * self.measured.epoch_start

    @property
    def wait_share(self) -> float:
        """The part of the training that goes by waiting for data, 0 to 1."""
        return self.waiting / self.training

    @property
    def evaluating(self) -> float:
        """Seconds of all evaluations."""
        one = self.measured.evaluation_start + self.plan.eval_batches * self.measured.evaluation.seconds
        return self.plan.evaluations * one

    @property
    def everything(self) -> float:
        """Seconds from the command to its end: also starting up, new sizes and checkpoints."""
        once = self.measured.start_up + self.measured.new_size
        return once + self.training + self.evaluating + self.plan.saves * self.measured.save

    @property
    def rate(self) -> float:
        """Images per second of training."""
        return self.plan.images / self.training

    @property
    def mfu(self) -> float | None:
        """The part of the devices' peak that training uses, 0 to 1."""
        return self.flops / self.training / self.peak if self.flops and self.peak else None

    def dollars(self, per_hour: float | None) -> float | None:
        """What the run costs on machines of that price."""
        return None if per_hour is None else self.everything / 3600 * per_hour
