"""From the counts and times of a run's pieces to the run: hours, waiting, dollars."""

import math
from collections import Counter
from dataclasses import dataclass, replace

from common.durations import parse
from config.dry_run import size_per_epoch
from config.run import durations_of
from config.schema import Config
from loaders.storage.kinds import kind_of

IMAGENET = {"train_dataset": 1_281_167, "eval_dataset": 50_000}  # images that random ones stand for


@dataclass(frozen=True)
class Plan:
    """A run, counted."""

    recipe: str
    length: str  # such as 36ep
    batch_size: int  # images per step over all devices
    batches: dict[int, float]  # image side in pixels -> training batches of the whole run; smallest side first
    epochs: int  # those begun
    evaluations: int
    eval_batches: int  # of one evaluation
    saves: int  # checkpoints

    @property
    def images(self) -> float:
        """Images trained on, repeated ones included."""
        return self.batch_size * sum(self.batches.values())


def plan_of(config: Config, recipe: str, images: int, eval_images: int, *, real: bool) -> Plan:
    """Count a run, given the numbers of images; random ones count as ImageNet's, unless `real`."""
    numbers = {"train_dataset": images, "eval_dataset": eval_images}
    if not real:
        numbers |= {key: IMAGENET[key] for key in numbers if not kind_of(config.section(key).storage).reads_path}
    images, eval_images = numbers.values()
    batch = config.train_dataset.batch_size
    length, per_epoch = durations_of(config)[0], images // batch
    total = length.batches(per_epoch, batch)
    sizes = size_per_epoch(config, length)

    def times(interval: str) -> int:
        # Composer evaluates and saves at the end too, multiple of the interval or not.
        every = parse(interval).batches(per_epoch, batch, total)
        return math.ceil(total / every - 1e-9) if every else 0

    return Plan(
        recipe=recipe,
        length=str(length),
        batch_size=batch,
        batches={size: total * count / len(sizes) for size, count in sorted(Counter(sizes).items())},
        epochs=math.ceil(total / per_epoch - 1e-9),
        evaluations=times(config.eval_interval),
        eval_batches=math.ceil(eval_images / config.eval_dataset.batch_size),
        saves=times(config.save_interval) if config.save_folder else 0,
    )


@dataclass(frozen=True)
class Pace:
    """Seconds per batch."""

    seconds: float  # from one batch's end to the next one's, waiting for data included
    waited: float = 0.0  # of these, waiting for the loader
    loading: float | None = None  # by the loader alone; None if nothing is loaded

    def elsewhere(self, compute: float, loaders: float) -> "Pace":
        """Return the pace of a machine that computes and loads faster by these factors; the slower of both decides."""
        computing = (self.seconds - self.waited) / compute
        loading = None if self.loading is None else self.loading / loaders
        seconds = max(computing, loading or 0.0)
        return Pace(seconds, seconds - computing, loading)


@dataclass(frozen=True)
class Measured:
    """Times of the pieces of one recipe's run, in seconds."""

    steps: dict[int, Pace]  # image side in pixels -> training at it
    evaluation: Pace
    evaluation_start: float = 0.0  # of an evaluation beyond its batches
    start_up: float = 0.0  # from the command to the end of the first step
    new_size: float = 0.0  # of the first steps at all other sizes beyond their pace: compilation, cuDNN's search
    epoch_start: float = 0.0  # waiting for an epoch's first batch
    save: float = 0.0  # one checkpoint
    advice: str = ""  # the next setting to change if data are the bottleneck

    def elsewhere(self, compute: float, loaders: float) -> "Measured":
        """Return the times on a machine as for `Pace.elsewhere`; what happens once stays as it is."""
        steps = {size: pace.elsewhere(compute, loaders) for size, pace in self.steps.items()}
        evaluation = self.evaluation.elsewhere(compute, loaders)
        return replace(self, steps=steps, evaluation=evaluation, epoch_start=self.epoch_start / loaders)


@dataclass(frozen=True)
class Forecast:
    """The time of one recipe's run."""

    plan: Plan
    measured: Measured
    flops: float | None = None  # of all training steps; None if the devices' peak is unknown
    peak: float | None = None  # FLOP/s of all devices together, by their maker

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
        """Share of the training spent waiting for data, 0 to 1."""
        return self.waiting / self.training

    @property
    def evaluating(self) -> float:
        """Seconds of all evaluations."""
        one = self.measured.evaluation_start + self.plan.eval_batches * self.measured.evaluation.seconds
        return self.plan.evaluations * one

    @property
    def everything(self) -> float:
        """Seconds from the command to its end, with start-up, new sizes and checkpoints."""
        once = self.measured.start_up + self.measured.new_size
        return once + self.training + self.evaluating + self.plan.saves * self.measured.save

    @property
    def rate(self) -> float:
        """Images per second of training."""
        return self.plan.images / self.training

    @property
    def mfu(self) -> float | None:
        """Share of the devices' peak that training uses, 0 to 1."""
        return self.flops / self.training / self.peak if self.flops and self.peak else None

    def dollars(self, per_hour: float | None) -> float | None:
        """Return the cost of the run at a price per hour."""
        return None if per_hour is None else self.everything / 3600 * per_hour
