"""The position of a run in its schedule, also after resuming with another batch size or data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from composer.core import Callback, State, Timestamp
from composer.loggers import Logger

from common.durations import parse
from config import ConfigError
from config.run import milestones_of
from config.schema import Config
from loaders.sampler import EpochSampler
from recipes.declared import arguments, declarations, units


@dataclass(frozen=True)
class Clock:
    """Convert a timestamp to steps of this run, by the unit of the run's length.

    Composer's `timestamp.batch` counts all steps taken, of any batch size, so it is a position in the schedule only if
    the run's length is given in batches.
    """

    unit: str  # of max_duration: ep, sp or ba
    batches_per_epoch: int
    batch_size: int  # images per step over all devices
    images: int  # size of the training set

    def step(self, timestamp: Timestamp) -> float:
        """Return the position in the schedule, in steps from its start.

        Exactly the batch count if the batch size never changed: floating-point division of multiples is exact.
        """
        if self.unit == "ba":
            return timestamp.batch.value
        if self.unit == "sp":
            return timestamp.sample.value / self.batch_size
        return self.step_by_epochs(timestamp)

    def step_by_epochs(self, timestamp: Timestamp) -> float:
        """Return the step, as if all earlier epochs had been as long as this run's."""
        return timestamp.epoch.value * self.batches_per_epoch + timestamp.sample_in_epoch.value / self.batch_size


def is_over(state: State) -> bool:
    """Whether the run has reached its full length."""
    return state.max_duration is not None and state.timestamp >= state.max_duration


class GoesOn(Callback):
    """Convert the position of a loaded checkpoint to this run's batches, for the sampler's image sizes as well."""

    def __init__(self, clock: Clock, config: Config, sampler: EpochSampler) -> None:
        self.clock, self.config, self.sampler = clock, config, sampler
        self._before: dict[str, int] | None = None  # from the checkpoint

    def state_dict(self) -> dict[str, Any]:
        """Return the batch size and the data set size behind the timestamp's counts."""
        return {"batch_size": self.clock.batch_size, "images": self.clock.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the checkpoint's sizes for after_load."""
        self._before = state

    def after_load(self, state: State, logger: Logger) -> None:
        """Convert the batches done in a started epoch, if lengths in batches and the position can be converted."""
        now, clock = state.timestamp, self.clock
        if not now.batch.value:
            return
        # Older checkpoints do not record the sizes, but all their batches had one size.
        before = self._before or {"batch_size": now.sample.value // now.batch.value, "images": clock.images}
        if before["batch_size"] != clock.batch_size:
            self._check_lengths(before["batch_size"])
            self._check_position(now.sample_in_epoch.value)
            batches = now.sample_in_epoch.value // clock.batch_size
            state.timestamp = now.copy(batch_in_epoch=batches)
        if before["images"] != clock.images:
            self._check_schedule()
        if self.sampler.size_at is not None:
            size_at, offset = self.sampler.size_at, clock.step(now) - clock.step_by_epochs(now)
            if offset:
                self.sampler.size_at = lambda epoch, batch: size_at(epoch, batch + offset)  # type: ignore[arg-type]

    def _check_lengths(self, before: int) -> None:
        for key, value in _moments(self.config):
            duration = parse(value)
            if duration.unit == "ba" and duration.value:
                sizes = (before, self.clock.batch_size)
                options = [f"{key}={duration.value * size:.0f}sp ({value} of {size})" for size in sizes]
                if key.startswith("algorithms."):  # their arguments cannot be in samples
                    options = [f"{key}={duration.value * before / self.clock.images:.3g}ep"]
                raise ConfigError(
                    f"{key}: {value} counts batches, but the checkpoint's batches have {before} images and this run's "
                    f"have {self.clock.batch_size}; give samples or epochs: {' or '.join(options)}"
                )

    def _check_position(self, done: int) -> None:
        size = self.clock.batch_size
        if done % size or done > self.clock.batches_per_epoch * size:
            raise ConfigError(
                f"train_dataset.batch_size: {size} does not divide the {done} images that the checkpoint's last epoch "
                "was trained on; give a batch size that does, or load a checkpoint from the end of an epoch"
            )

    def _check_schedule(self) -> None:
        """Check that the schedule's times keep their fraction of the run with a data set of another size."""
        scheduler, length = self.config.scheduler, parse(self.config.max_duration)
        times = [("scheduler.milestones", time, "") for time, _ in milestones_of(self.config)]
        if scheduler.name != "one_cycle":
            warmup, sizes = parse(scheduler.t_warmup), (self.clock.batches_per_epoch, self.clock.batch_size)
            part = warmup.batches(*sizes) / length.batches(*sizes)
            how = f": type scheduler.t_warmup={part * length.value:.6g}{length.unit}"
            times.append(("scheduler.t_warmup", warmup, how))
        for key, time, how in times:
            if time.value and time.unit not in ("dur", length.unit) and "ep" in (time.unit, length.unit):
                raise ConfigError(
                    f"{key}: {time} and max_duration {length} give the checkpoint different positions, "
                    f"because its data set had another size; give both in {length.unit}{how}"
                )


def _moments(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the keys that name a moment of the run, not an interval, with their values."""
    yield "max_duration", config.max_duration
    if config.scheduler.name != "one_cycle":
        yield "scheduler.t_warmup", config.scheduler.t_warmup
    for name, given in config.algorithms.items():
        for key, bound in declarations("algorithm", name).BOUNDS.items():
            if {"dur", "ba"} <= set(units(bound)):  # an interval cannot be in dur
                yield f"algorithms.{name}.{key}", arguments("algorithm", name, given)[key]
