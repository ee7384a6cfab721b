"""Check that each algorithm has an effect: one that changes nothing is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from composer.core import Algorithm, Callback, Event, State
from composer.loggers import Logger
from torch import Tensor

from common.durations import parse
from common.errors import counted
from config import ConfigError, Run, TrainingError
from recipes.algorithms._base import Length, RecipeAlgorithm, Start, ours
from recipes.declared import declarations
from training.clock import Clock, is_over
from training.devices import say

if TYPE_CHECKING:
    from training.build import Schedule

_PLAIN = (bool, int, float, str, type, type(None))


class Watch:
    """Wrap an algorithm's `apply` and compare the state before and after each call, until the algorithm has acted.

    Compared are the model (modules, their attributes, weights, gradients), the optimizers, the batch, outputs and loss
    (by value), the attributes of the State and of the loader's transforms, `image_transform`, and the result of
    `size_in_loader`. For any other effect, such as a moving average, an algorithm sets `acted` itself.
    """

    def __init__(self, name: str, args: Mapping[str, Any], algorithm: Algorithm) -> None:
        self.name, self.args, self.algorithm = name, args, algorithm
        self.call = f"{type(algorithm).__name__}({', '.join(f'{key}={value}' for key, value in args.items())})"
        self._acted, self._apply = False, algorithm.apply
        algorithm.apply = self  # type: ignore[method-assign]
        if isinstance(algorithm, RecipeAlgorithm):
            self._acted, self._size_in_loader = algorithm.image_transform is not None, algorithm.size_in_loader
            algorithm.size_in_loader = self.size_in_loader  # type: ignore[method-assign]

    @property
    def acted(self) -> bool:
        """Whether the algorithm has changed something, seen here or recorded by the algorithm."""
        return self._acted or any(algorithm.acted for algorithm in ours([self.algorithm]))

    @acted.setter
    def acted(self, value: bool) -> None:
        self._acted = value

    @property
    def starts(self) -> list[Start]:
        """Moments of the run that must come before it can change anything."""
        if isinstance(self.algorithm, RecipeAlgorithm):
            return self.algorithm.first_effect()
        known, declared = vars(self.algorithm), declarations("algorithm", self.name)
        return [Start(time, known[time].to_timestring(), known[event]) for time, event in declared.STARTS.items()]

    @property
    def is_prompt(self) -> bool:
        """Whether it must act in the first batch."""
        return isinstance(self.algorithm, RecipeAlgorithm) and not (self.algorithm.rare or self.starts)

    def __call__(self, event: Event, state: State, logger: Logger) -> int | None:
        """Apply the algorithm; raise a TrainingError for surgery that changed nothing, or replaced what is frozen."""
        if self.acted:
            return self._apply(event, state, logger)
        before = _seen(state)
        frozen = {id(p): name for name, p in state.model.named_parameters() if not p.requires_grad}
        code = self._apply(event, state, logger)
        for lost in frozen.keys() - {id(p) for p in state.model.parameters()}:
            raise TrainingError(
                f"algorithms.{self.name}: replaces {frozen[lost].removeprefix('module.')}, which model.freeze keeps; "
                f"type algorithms.{self.name}=null or model.freeze=null"
            )
        self._acted = not _same(before, _seen(state))
        if event == Event.INIT and self.algorithm.required_on_load() and not self.acted:
            raise TrainingError(self.idle(f"in {type(state.model.module).__name__}"))
        return code

    def size_in_loader(self, wanted: int, crop_size: int, elapsed: float) -> int:
        """Return the algorithm's size; another one than `wanted` counts as an effect."""
        size = self._size_in_loader(wanted, crop_size, elapsed)
        self._acted |= size != wanted
        return size

    def takes(self, start: Start, value: float | str) -> bool:
        """Whether the class accepts this value for the start's argument, with the other arguments as given."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                type(self.algorithm)(**{**self.args, start.argument: value})
            except (TypeError, ValueError):
                return False
        return True

    def idle(self, where: str) -> str:
        """Return the message for an algorithm without effect."""
        return (
            f"algorithms.{self.name}: {self.call} changed nothing {where}; give it other arguments, or remove it: "
            f"algorithms.{self.name}=null"
        )


class Effects(Callback):
    """Fail the run if an algorithm has had no effect in time, or by its end, `total` batches.

    Composer's algorithms, ours that are `rare`, and those that start later have one epoch, all others one batch.
    It must precede the callback that saves: a run without its recipe's effect must leave no checkpoint.
    """

    def __init__(self, watches: Sequence[Watch], clock: Clock, total: float) -> None:
        self.watches, self.clock, self.total = watches, clock, total
        self._loaded = False

    def state_dict(self) -> dict[str, Any]:
        """Return which algorithms have acted: a run may resume after an algorithm's last effect."""
        return {"acted": [watch.name for watch in self.watches if watch.acted]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict()."""
        self._loaded = True
        for watch in self.watches:
            watch.acted = watch.acted or watch.name in state["acted"]

    def after_load(self, state: State, logger: Logger) -> None:
        """Assume that all algorithms have acted if the checkpoint is too old to record it."""
        for watch in self.watches if state.timestamp.batch.value and not self._loaded else ():
            watch.acted = True

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Check after the first batch, and at the end of a run that ends in mid-epoch."""
        if state.timestamp.batch.value == 1 or is_over(state):
            self._check(state)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Check at the end of an epoch, after its evaluation."""
        self._check(state)

    def _check(self, state: State) -> None:
        done, batches = self.clock.step(state.timestamp), state.timestamp.batch.value
        for watch in self.watches:
            patience = 0 if is_over(state) else 1 if watch.is_prompt else self.clock.batches_per_epoch
            if not watch.acted and done >= self._start(watch) + patience:
                raise TrainingError(watch.idle(f"in the first {counted(batches, 'batch', 'batches')}"))

    def _start(self, watch: Watch) -> float:
        """Return after how many batches an algorithm starts."""
        size = self.clock.batches_per_epoch, self.clock.batch_size, self.total
        return max((parse(start.moment).batches(*size) for start in watch.starts), default=0)


def for_run(run: Run, algorithms: Sequence[Algorithm], schedule: Schedule) -> list[Callback]:
    """Check that the algorithms start in time; return the callback that checks their effects, none when evaluating."""
    if not run.config.is_train:
        return []
    watches = [cast(Watch, algorithm.apply) for algorithm in algorithms]
    late = [_late(watch, start, schedule) for watch in watches for start in watch.starts]
    # Callers of the published example's functions run recipes for a batch or two.
    if (problems := [sentence for sentence in late if sentence]) and not run.lenient:
        raise ConfigError(*problems)
    for sentence in filter(None, (_shortfall(watch, schedule) for watch in watches)) if not run.lenient else ():
        say(f"warning: {sentence}")
    return [Effects(watches, schedule.clock, schedule.batches)]


def _late(watch: Watch, start: Start, schedule: Schedule) -> str:
    """Return the error for a start that the run never reaches; empty if it does."""
    wanted = parse(start.moment)
    seen = last_seen(start.event, wanted.unit, schedule)
    if seen >= wanted.value:
        return ""
    key = f"algorithms.{watch.name}.{start.argument}"
    is_number = isinstance(getattr(watch.algorithm, start.argument), int | float)
    largest = int(seen * 1e4) / 1e4
    value = f"{largest:g}{'' if is_number else wanted.unit}"
    can_be_less = largest > 0 and watch.takes(start, float(value) if is_number else value)
    options = [f"{key}={value} or less"] if can_be_less else []
    return (
        f"{key}: {wanted} is never reached in a run of {schedule.max_duration} with {schedule.clock.batches_per_epoch} "
        f"batches per epoch, so {watch.name} would change nothing; give "
        f"{' or '.join([*options, 'a longer max_duration'])}, or remove it: algorithms.{watch.name}=null"
    )


def _shortfall(watch: Watch, schedule: Schedule) -> str:
    """Return the warning about a run that is too short for an algorithm; empty if it is not."""
    clock, last = schedule.clock, last_seen(Event.BATCH_START, "dur", schedule)
    length = Length(schedule.batches, clock.batches_per_epoch, clock.batch_size, last)
    for algorithm in ours([watch.algorithm]):
        if found := algorithm.shortfall(length):
            why, arguments = found
            words = [f"algorithms.{watch.name}.{name}={value}" for name, value in (arguments or {}).items()]
            run = f"in a run of {schedule.max_duration}, {counted(schedule.batches, 'batch', 'batches')}"
            return f"algorithms.{watch.name}: {why} {run}; type {' '.join(words or [f'algorithms.{watch.name}=null'])}"
    return ""


def last_seen(event: Event, unit: str, schedule: Schedule) -> float:
    """Return how much of a run has elapsed, in `unit`, when an event occurs for the last time; 0 if it never occurs.

    As in Composer, the elapsed share of a run in epochs changes only at the end of an epoch.
    """
    length, per_epoch, total = parse(schedule.max_duration), schedule.clock.batches_per_epoch, schedule.batches
    before, whole = (total - 1) // per_epoch, total // per_epoch
    batches, epochs = {
        Event.BATCH_START: (total - 1, before),
        Event.BATCH_END: (total, before),
        Event.EPOCH_END: (whole * per_epoch, whole),
    }[event]
    counts = {"ba": batches, "sp": batches * schedule.clock.batch_size, "ep": epochs}
    return counts[length.unit] / length.value if unit == "dur" else counts[unit]


def _seen(state: State) -> tuple[list[Any], list[Tensor]]:
    """Return what an algorithm can change: facts to compare, and copies of tensors to compare by value."""
    modules = list(state.model.modules())
    weights = [*state.model.parameters(), *state.model.buffers()]
    weights += [p.grad for p in state.model.parameters() if p.grad is not None]
    facts: list[Any] = [(id(module), _settings(module)) for module in modules]
    facts += [(id(t), t.data_ptr(), t.stride(), t.requires_grad) for t in weights]
    for optimizer in state.optimizers:
        groups = [{**group, "params": list(map(id, group["params"]))} for group in optimizer.param_groups]
        slots = [value for slot in optimizer.state.values() for value in slot.values() if isinstance(value, Tensor)]
        facts += [type(optimizer), [str(group) for group in groups]]
        weights += slots
    facts += [t._version for t in weights]
    # Norms, because a write to `.data` does not change _version.
    floats = [t.detach() for t in weights if t.is_floating_point()]
    for device in {t.device: None for t in floats}:  # Adam's step counts stay on the CPU; foreach needs one device
        norms = torch._foreach_norm([t for t in floats if t.device == device])
        facts += torch.stack([norm.float() for norm in norms]).tolist()
    pipeline = getattr(getattr(state.train_dataloader, "dataset", None), "pipeline", None)
    facts += [str(state.max_duration), {k: v for k, v in vars(state).items() if isinstance(v, _PLAIN)}]
    facts += [_settings(pipeline)] if pipeline is not None else []
    return facts, [t.detach().clone() for t in _tensors((state.batch, state.outputs, state.loss))]


def _settings(thing: object) -> tuple[type, dict[str, Any]]:
    """Return an object's class and its comparable attributes."""
    return type(thing), {key: _comparable(value) for key, value in vars(thing).items()}


def _comparable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return len(value) if isinstance(value, dict) else value if isinstance(value, _PLAIN) else id(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _same(one: tuple[list[Any], list[Tensor]], other: tuple[list[Any], list[Tensor]]) -> bool:
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return False
    pairs = zip(one[1], other[1], strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
