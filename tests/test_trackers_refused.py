"""Mistakes in callbacks and trackers are sentences, before training where possible; a bug keeps its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.suggest import listing
from config import ConfigError, load
from config.schema import METRICS
from recipes import registry
from recipes.refusals import blamed

RESNET50 = str(Path(__file__).parent.parent / "yamls" / "resnet50.yaml")
EARLY = "callbacks.early_stopper={{monitor: {}, dataloader_label: {}, patience: {}}}"
THRESHOLD = "callbacks.threshold_stopper={{monitor: {}, dataloader_label: {}, threshold: 0.5}}"
MISTAKES = {
    EARLY.format("Accuracy", "eval", 1): (
        "callbacks.early_stopper.monitor: unknown metric 'Accuracy'; did you mean MulticlassAccuracy? "
        f"(choose {listing(METRICS)}) [command line]"
    ),
    THRESHOLD.format("loss", "eval"): "callbacks.threshold_stopper.monitor: unknown metric 'loss' (choose",
    EARLY.format("CrossEntropy", "train", 1): (
        "callbacks.early_stopper.dataloader_label: 'train' given, but only evaluations have metrics; "
        "type callbacks.early_stopper.dataloader_label=eval [command line]"
    ),
    THRESHOLD.format("CrossEntropy", "val"): "callbacks.threshold_stopper.dataloader_label: 'val' given",
    EARLY.format("CrossEntropy", "eval", "100sp"): "callbacks.early_stopper.patience: '100sp' given, but it must be a",
    EARLY.format("CrossEntropy", "eval", "1.5"): "callbacks.early_stopper.patience: 1.5 given, but it must be a number",
    "loggers.wandb.project=a/b": (
        "loggers.wandb.project: 'a/b' given, but a project name must have at most 128 characters, and none of "
        "/ \\ # ? % : [command line]"
    ),
    "loggers.wandb.init_kwargs={project: 'a:b'}": "loggers.wandb.init_kwargs.project: 'a:b' given",
    "loggers.wandb.project=" + 129 * "x": "loggers.wandb.project: '",
    "loggers.wandb.init_kwargs={api_key: x}": (
        "loggers.wandb.init_kwargs.api_key: wandb.init has no such argument; put WANDB_API_KEY=... before the command"
    ),
    "loggers.wandb.init_kwargs={nots: x}": "init_kwargs.nots: wandb.init has no such argument; did you mean notes?",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_found_before_anything_is_built(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        load([RESNET50, "dry_run=true", word])
    (problem,) = error.value.problems
    assert MISTAKES[word] in problem


def test_valid_settings_pass() -> None:
    words = [EARLY.format("CrossEntropy", "eval", patience) for patience in (2, "2ep", "9ba")]
    for word in [*words, THRESHOLD.format("MulticlassAccuracy", "eval"), "loggers.wandb.init_kwargs={notes: a/b}"]:
        load([RESNET50, "dry_run=true", word])


def test_the_listed_metrics_are_the_models() -> None:
    from model import build_composer_resnet

    assert set(build_composer_resnet("resnet18", "cross_entropy", 3).get_metrics()) == set(METRICS)


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("callback", "load_checkpoint", {"load_path": "x.pt", "event": "nosuch"}, "load_checkpoint.event: LoadCheckpoint"),
    ("callback", "activation_monitor", {"interval": "5sec"}, "activation_monitor.interval: ActivationMonitor rejects"),
    ("callback", "speed_monitor", {"window_size": 3, "time_unit": "weeks"}, "speed_monitor.time_unit: SpeedMonitor"),
    ("callback", "memory_snapshot", {"interval": []}, "memory_snapshot.interval: MemorySnapshot rejects its arguments"),
    ("logger", "console", {"stream": "nosuch"}, "console.stream: ConsoleLogger rejects its arguments: stream must be"),
]


@pytest.mark.parametrize(("kind", "name", "args", "expected"), REFUSED)
def test_arguments_that_an_installed_class_rejects(kind: str, name: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        registry.build(kind, name, args)
    assert str(error.value).startswith(f"{kind}s.{expected}")
    assert error.value.__cause__ is not None


def test_errors_that_a_callback_raises_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from composer.callbacks import SpeedMonitor
    from composer.core import Event

    made = registry.build("callback", "speed_monitor", {"window_size": 7})
    with pytest.raises(ConfigError, match=r"^callbacks\.speed_monitor\.window_size: SpeedMonitor stopped the run: "):
        made.run_event(Event.BATCH_END, None, None)

    def bug(*_: object) -> None:
        raise RuntimeError("a mistake in code of ours")

    monkeypatch.setattr(SpeedMonitor, "batch_end", bug)
    with pytest.raises(RuntimeError, match="a mistake in code of ours"):
        made.run_event(Event.BATCH_END, None, None)


def test_the_key_to_blame() -> None:
    args = {"project": "a/b", "init_kwargs": {"api_key": "x"}}
    assert blamed("w", args, "Invalid project name 'a/b'") == "w.project"
    assert blamed("w", args, "init() got an unexpected keyword argument 'api_key'") == "w.init_kwargs.api_key"
    assert blamed("w", args, "no connection") == "w"
    assert blamed("w", {"a": 1}, "no connection") == "w.a"
