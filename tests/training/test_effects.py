"""An algorithm that does nothing fails the run; one that would start too late fails it at the start."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from composer.core import Algorithm, Callback, Event, State
from composer.loggers import Logger

from common.durations import parse
from common.errors import ConfigError, TrainingError
from config.schema import Config
from recipes import registry
from recipes.algorithms._base import RecipeAlgorithm
from tests.algorithms.tiny import BATCH_SIZE, loader, trainer
from training.clock import Clock
from training.effects import Effects, Watch, for_run, last_seen

PER_EPOCH = 4
EVENTS = (Event.BATCH_START, Event.BATCH_END, Event.EPOCH_END)


def schedule_of(duration: str) -> Any:
    """Schedule of a run with 4 batches of 8 per epoch."""
    clock = Clock(duration[-2:], PER_EPOCH, BATCH_SIZE, PER_EPOCH * BATCH_SIZE)
    batches = math.ceil(parse(duration).batches(PER_EPOCH, BATCH_SIZE))
    return SimpleNamespace(max_duration=duration, batches=batches, clock=clock)


def trained(algorithm: Algorithm, duration: str = "1ep", **arguments: Any) -> Watch:
    """Train with one algorithm, watched as in main.py."""
    watch = Watch("mine", {"strength": 3}, algorithm)
    guard = Effects([watch], schedule_of(duration).clock, 0)
    trainer([algorithm], duration=duration, train_loader=loader(PER_EPOCH), callbacks=[guard], **arguments).fit()
    return watch


class Mine(RecipeAlgorithm):
    """An algorithm as a user would write it: it calls `do` on an event."""

    def __init__(self, event: Event = Event.BATCH_START, do: Any = lambda *_: None) -> None:
        self.event, self.do, self.calls = event, do, 0

    def match(self, event: Event, state: State) -> bool:
        return event == self.event

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        self.calls += 1
        logger.log_metrics({"mine/calls": self.calls})
        self.do(self, state)


@torch.no_grad()
def scale_weights(_: Mine, state: State) -> None:
    next(state.model.parameters()).mul_(1.01)


def set_mode(_: Mine, state: State) -> None:
    next(m for m in state.model.modules() if isinstance(m, torch.nn.BatchNorm2d)).momentum = 0.2


ACTING: dict[str, tuple[Event, Any]] = {
    "a weight": (Event.BATCH_END, scale_weights),
    "a weight's data": (Event.BATCH_END, lambda _, state: next(state.model.parameters()).data.mul_(1.01)),
    "a gradient": (Event.AFTER_TRAIN_BATCH, lambda _, state: next(state.model.parameters()).grad.mul_(0.5)),
    "a module's setting": (Event.FIT_START, set_mode),
    "a hook": (Event.FIT_START, lambda _, state: state.model.module.fc.register_forward_hook(lambda *_: None)),
    "a frozen weight": (Event.EPOCH_START, lambda _, state: state.model.module.fc.bias.requires_grad_(False)),
    "the optimizer": (Event.BATCH_START, lambda _, state: state.optimizers[0].param_groups[0].update(lr=0.01)),
    "the batch": (Event.AFTER_DATALOADER, lambda _, state: state.batch_set_item(0, state.batch_get_item(0) * 0.9)),
    "the batch in place": (Event.BEFORE_FORWARD, lambda _, state: state.batch_get_item(0).mul_(0.9)),
    "the outputs": (Event.AFTER_FORWARD, lambda _, state: setattr(state, "outputs", state.outputs * 0.9)),
    "the loss": (Event.AFTER_LOSS, lambda _, state: setattr(state, "loss", state.loss * 0.9)),
    "weights for an evaluation": (Event.EVAL_START, scale_weights),
    "what it records": (Event.BATCH_END, lambda self, _: setattr(self, "acted", True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ACTING)
def test_every_kind_of_effect_counts(what: str) -> None:
    algorithm = Mine(*ACTING[what])
    algorithm.rare = algorithm.event == Event.EVAL_START
    assert trained(algorithm, eval_dataloader=loader(1)).acted


IDLE: dict[str, Algorithm] = {
    "looks on": Mine(),
    "never matches": Mine(Event.PREDICT_START, scale_weights),
    "puts the same values back": Mine(
        Event.BEFORE_FORWARD, lambda _, state: state.batch_set_item(0, state.batch_get_item(0).clone())
    ),
    "changes what nobody reads": Mine(
        Event.FIT_START, lambda _, state: setattr(state.train_dataloader.dataset, "transform", print)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", IDLE)
@pytest.mark.parametrize("duration", ["1ep", "2ba", "2ep"])
@pytest.mark.parametrize("rare", [False, True])
def test_idle(what: str, duration: str, rare: bool) -> None:
    """An error in the first batch; at the end of the epoch or the run for an algorithm whose effect may be rare."""
    batches = ("2 batches" if duration == "2ba" else "4 batches") if rare else "1 batch"
    words = rf"algorithms.mine: Mine\(strength=3\) changed nothing in the first {batches}; .*mine=null"
    IDLE[what].rare = rare  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=words):
        trained(IDLE[what], duration)


def test_sizes_and_transforms_of_the_loader_count() -> None:
    for size, acts in ((16, True), (24, False)):
        algorithm = Mine()
        algorithm.size_in_loader = lambda *_, size=size: size  # type: ignore[method-assign]
        watch = Watch("mine", {}, algorithm)
        assert algorithm.size_in_loader(24, 24, 0.0) == size
        assert watch.acted == acts
    algorithm = Mine()
    algorithm.image_transform = torch.clone
    assert Watch("mine", {}, algorithm).acted


def test_a_resumed_run_remembers_what_acted() -> None:
    """Also after an algorithm's last action; a checkpoint without the record is trusted."""
    watches = [Watch(name, {}, Mine()) for name in ("one", "other")]
    guard = Effects(watches, schedule_of("2ep").clock, 8)
    watches[0].acted = True
    saved = guard.state_dict()
    again = [Watch(name, {}, Mine()) for name in ("one", "other", "new")]
    Effects(again, guard.clock, 8).load_state_dict(saved)
    assert [watch.acted for watch in again] == [True, False, False]
    state: Any = SimpleNamespace(timestamp=SimpleNamespace(batch=SimpleNamespace(value=4)))
    guard.after_load(state, None)  # type: ignore[arg-type]
    assert all(watch.acted for watch in watches)


class Clocks(Callback):
    """Records the last values of every unit at each event."""

    def __init__(self) -> None:
        self.last: dict[Event, dict[str, float]] = {}

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        if event in EVENTS:
            now, elapsed = state.timestamp, state.get_elapsed_duration()
            assert elapsed is not None
            counts = {"ep": now.epoch.value, "ba": now.batch.value, "sp": now.sample.value}
            self.last[event] = {**counts, "dur": elapsed.value}


@pytest.mark.slow
@pytest.mark.parametrize("duration", ["2ep", "3ba", "8ba", "10ba", "60sp", "64sp"])
def test_last_seen_equals_composers_timestamps(duration: str) -> None:
    clocks = Clocks()
    trainer(duration=duration, train_loader=loader(PER_EPOCH), callbacks=[clocks]).fit()
    for event in EVENTS:
        expected = clocks.last.get(event, dict.fromkeys(("ep", "ba", "sp", "dur"), 0))
        assert {unit: last_seen(event, unit, schedule_of(duration)) for unit in expected} == expected, event


# Algorithm, its arguments, max_duration, and the expected advice: None if it starts in time.
STARTS: list[tuple[str, dict[str, Any], str, str | None]] = [
    (
        "swa",
        {"swa_start": "0.5dur", "update_interval": "1ba"},
        "2ep",
        "swa would change nothing; give a longer max_duration, or remove",
    ),
    ("swa", {"swa_start": "0.5dur"}, "10ba", "swa.swa_end=0.8dur or less"),
    ("swa", {"swa_start": "0.5dur"}, "3ba", "give a longer max_duration"),
    ("swa", {"swa_start": "0.5dur", "update_interval": "1ba"}, "10ba", None),
    ("swa", {"swa_start": "0.5dur", "update_interval": "1ba"}, "60sp", None),
    (
        "swa",
        {"swa_start": "1ep", "swa_end": "2ep", "update_interval": "1ba"},
        "64sp",
        "swa would change nothing; give a longer max_duration, or remove",
    ),
    ("swa", {"swa_start": "1ep", "swa_end": "2ep"}, "64sp", None),
    ("ema", {"ema_start": "0.9dur"}, "2ep", "ema.ema_start=0.5dur or less"),
    ("ema", {"half_life": "1ep", "ema_start": "0.9dur"}, "2ep", None),
    ("ema", {"update_interval": "9ba"}, "8ba", "ema.update_interval=8ba or less"),
    ("sam", {"interval": 9}, "2ep", "sam.interval=8 or less"),
    ("sam", {"interval": 8}, "64sp", None),
]


@pytest.mark.filterwarnings("ignore:SWA has known issues")
@pytest.mark.parametrize(("name", "args", "duration", "advice"), STARTS)
def test_start_after_the_end(name: str, args: dict[str, Any], duration: str, advice: str | None) -> None:
    algorithm = registry.build("algorithm", name, args)
    Watch(name, args, algorithm)
    run: Any = SimpleNamespace(config=Config(), lenient=False)
    if advice is None:
        assert for_run(run, [algorithm], schedule_of(duration))
        return
    with pytest.raises(ConfigError, match=f"is never reached in a run of {duration}") as raised:
        for_run(run, [algorithm], schedule_of(duration))
    assert advice in str(raised.value)
    run.lenient = True
    assert for_run(run, [algorithm], schedule_of(duration)), "the published example tries recipes for one batch"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SWA has known issues")
@pytest.mark.parametrize(("name", "args", "duration", "advice"), [start for start in STARTS if start[0] == "swa"])
def test_rejected_algorithms_would_do_nothing(
    name: str, args: dict[str, Any], duration: str, advice: str | None
) -> None:
    watch = Watch(name, args, registry.build("algorithm", name, args))
    trainer([watch.algorithm], duration=duration, train_loader=loader(PER_EPOCH)).fit()
    assert watch.acted == (advice is None)
