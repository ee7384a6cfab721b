"""Where a run stands in its own schedule, also after it goes on with another batch size or data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.core import Callback, State, Timestamp
from composer.loggers import Logger

from common.durations import parse
from config import ConfigError
from config.schema import Config
from recipes.declared import arguments, declarations, units

if TYPE_CHECKING:
    from loaders.sampler import EpochSampler


@dataclass(frozen=True)
class Clock:
    """Reads a timestamp in steps of this run, by what the run's length is counted in.

    Composer's `timestamp.batch` counts the steps ever taken, of whatever size they were: as a position it means
    something only to a run whose length is given in batches.

    Args:
        unit: of max_duration: ep, sp or ba.
        batches_per_epoch: of this run.
        batch_size: images per step over all devices, of this run.
        images: in the training set.
    """

    unit: str
    batches_per_epoch: int
    batch_size: int
    images: int

    def step(self, timestamp: Timestamp) -> float:
        """The position, in steps from the start of the schedule; the count of batches if the batch size never changed.

        That is exact: a ratio of whole numbers that divide is a whole number in floating point too.
        """
        if self.unit == "ba":
            return timestamp.batch.value
        if self.unit == "sp":
            return timestamp.sample.value / self.batch_size
        return self.step_by_epochs(timestamp)

    def step_by_epochs(self, timestamp: Timestamp) -> float:
        """The step at which this run would be if all earlier epochs had been as long as its own."""
        return timestamp.epoch.value * self.batches_per_epoch + timestamp.sample_in_epoch.value / self.batch_size


class GoesOn(Callback):
    """Restates the position of a loaded checkpoint in this run's batches, or refuses it where it has no meaning here.

    Args:
        clock: this run's.
        config: this run's.
        sampler: of the training data, whose image sizes may depend on the position.
    """

    def __init__(self, clock: Clock, config: Config, sampler: EpochSampler) -> None:
        self.clock, self.config, self.sampler = clock, config, sampler
        self._before: dict[str, int] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What the numbers of the timestamp are counted in."""
        return {"batch_size": self.clock.batch_size, "images": self.clock.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what the checkpoint's are counted in, for after_load."""
        self._before = state

    def after_load(self, state: State, logger: Logger) -> None:
        """Restate the batches of a started epoch.

        Raises:
            ConfigError: if a length in batches, or the place in the epoch, cannot be carried over.
        """
        now, clock = state.timestamp, self.clock
        if not now.batch.value:
            return
        # Checkpoints of earlier versions do not say; all their batches were of one size.
        before = self._before or {"batch_size": now.sample.value // now.batch.value, "images": clock.images}
        if before["batch_size"] != clock.batch_size:
            self._check_lengths(before["batch_size"])
            self._check_place(now.sample_in_epoch.value)
            batches = now.sample_in_epoch.value // clock.batch_size
            state.timestamp = now.copy(batch_in_epoch=batches)
        if before["images"] != clock.images:
            self._check_warmup()
        if self.sampler.size_at is not None:
            size_at, offset = self.sampler.size_at, clock.step(now) - clock.step_by_epochs(now)
            if offset:
                self.sampler.size_at = lambda epoch, batch: size_at(epoch, batch + offset)  # type: ignore[arg-type]

    def _check_lengths(self, before: int) -> None:
        for key, value in _moments(self.config):
            duration = parse(value)
            if duration.unit == "ba" and duration.value:
                sizes = (before, self.clock.batch_size)
                ways = [f"{key}={duration.value * size:.0f}sp ({value} of {size})" for size in sizes]
                if key.startswith("algorithms."):  # which know no samples
                    ways = [f"{key}={duration.value * size / self.clock.images:.3g}ep" for size in sizes[:1]]
                raise ConfigError(
                    f"{key}: {value} counts batches, but the checkpoint's were of {before} images and this run's are "
                    f"of {self.clock.batch_size}; give samples or epochs: {' or '.join(ways)}"
                )

    def _check_place(self, done: int) -> None:
        size = self.clock.batch_size
        if done % size or done > self.clock.batches_per_epoch * size:
            raise ConfigError(
                f"train_dataset.batch_size: {size} does not divide the {done} images of the started epoch that the "
                "checkpoint has trained on; give a batch size that does, or load a checkpoint from the end of an epoch"
            )

    def _check_warmup(self) -> None:
        warmup = parse(self.config.scheduler.t_warmup)
        odd = warmup.unit not in ("dur", self.clock.unit) and "ep" in (warmup.unit, self.clock.unit)
        if odd and warmup.value and self.config.scheduler.name != "one_cycle":
            length = parse(self.config.max_duration)
            batches = warmup.batches(self.clock.batches_per_epoch, self.clock.batch_size)
            total = length.batches(self.clock.batches_per_epoch, self.clock.batch_size)
            raise ConfigError(
                f"scheduler.t_warmup: {warmup} and max_duration {length} place the checkpoint differently, because it "
                f"was trained on a data set of another size; give both in {self.clock.unit}: "
                f"scheduler.t_warmup={batches / total * length.value:.6g}{length.unit}"
            )


def _moments(config: Config) -> Iterator[tuple[str, str]]:
    """The keys that name a moment of the run, not an interval, with their values."""
    yield "max_duration", config.max_duration
    if config.scheduler.name != "one_cycle":
        yield "scheduler.t_warmup", config.scheduler.t_warmup
    for name, given in config.algorithms.items():
        for key, bound in declarations("algorithm", name).BOUNDS.items():
            if {"dur", "ba"} <= set(units(bound)):  # an interval is not in dur
                yield f"algorithms.{name}.{key}", arguments("algorithm", name, given)[key]
