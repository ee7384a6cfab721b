"""The registry: spellings of names, precedence, arguments read from source, building objects."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composer.callbacks import SpeedMonitor

from common.annotations import describe, fits
from config import ConfigError
from recipes import algorithms as own_algorithms
from recipes import registry, source

ROOT = Path(__file__).parent.parent


def test_names_have_many_spellings() -> None:
    assert {registry.canonical("algorithm", w) for w in ("blurpool", "blur_pool", "BlurPool")} == {"blurpool"}
    assert {registry.canonical("logger", w) for w in ("wandb", "WandBLogger", "wandb_logger")} == {"wandb"}
    assert {registry.canonical("logger", w) for w in ("comet", "comet_ml", "CometMLLogger")} == {"cometml"}
    assert {"tensorboard", "mlflow", "file", "console", "progress_bar"} <= set(registry.names("logger"))
    assert {"speed_monitor", "lr_monitor", "mlperf"} <= set(registry.names("callback"))
    assert {"sgd", "adam", "adamw", "rmsprop", "decoupled_sgdw"} <= set(registry.names("optimizer"))
    assert registry.canonical("algorithm", "nonsense") == "nonsense"


def test_our_algorithms_take_precedence_over_composers() -> None:
    for file in (ROOT / "recipes" / "algorithms").glob("[!_]*.py"):
        assert registry.table("algorithm")[file.stem.replace("_", "")].file == file
    assert "max_sizes" in registry.signature("algorithm", "progressive_resizing")


def test_signatures_read_from_source_match_inspect() -> None:
    import inspect

    import torch.optim

    for name, cls in {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}.items():
        real = {key: p.default for key, p in inspect.signature(cls).parameters.items() if key != "params"}
        assert {key: p.default for key, p in registry.signature("optimizer", name).items()} == real


def test_build_returns_an_object_or_raises_a_sentence() -> None:
    monitor: Any = registry.build("callback", "speed_monitor", {"window_size": 7})
    assert type(monitor).__name__ == "SpeedMonitor"
    with pytest.raises(ConfigError, match=r"callbacks\.speed_monitor\.window_sise.*did you mean window_size"):
        registry.build("callback", "speed_monitor", {"window_sise": 7})
    with pytest.raises(ConfigError, match=r"algorithms\.mixup: .* rejects its arguments"):
        registry.build("algorithm", "mixup", {"alpha": -1.0})


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("float", [1, 1.5], ["1", True, None]),
        ("Optional[int]", [1, None], [1.5, "1"]),
        ("int | str | None", [1, "a", None], [1.5, []]),
        ("Union[str, Time]", ["a", 3, object()], []),  # Time accepts anything
        ("'bool'", [True], [1]),
        ("Literal['block', 'sample']", ["block"], ["blocks"]),
        ("Sequence[float]", [[1.0]], ["ab", 1]),
        ("dict[str, Any]", [{}], [[]]),
        ("tuple[float, float]", [[0.9, 1], (0, 0)], [[0.9], [0.9, "a"], [], "ab", [0.9, 0.9, 0.9]]),
        ("Tuple[float, ...]", [[0.9], []], ["ab"]),
    ],
)
def test_only_obvious_misfits_are_rejected(annotation: str, good: list, bad: list) -> None:
    assert all(fits(value, annotation) for value in good)
    assert not any(fits(value, annotation) for value in bad)


def test_annotations_in_words() -> None:
    assert describe("Optional[float]") == "a number or null"
    assert describe("int | bool") == "a whole number or true or false"
    assert describe("tuple[float, int]") == "a list of 2 (a number, a whole number)"


def test_a_class_without_init_takes_its_base_class_arguments(tmp_path: Path) -> None:
    file = tmp_path / "derived.py"
    file.write_text("from composer.callbacks import SpeedMonitor as Base\n\n\nclass Mine(Base):\n    pass\n")
    assert "window_size" in source.parameters(source.Definition("derived", "Mine", file))
    assert source.derives(file, "Mine", "Callback")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Function that writes recipes/algorithms/unfinished.py in a temporary folder."""
    file = tmp_path / "algorithms/unfinished.py"
    file.parent.mkdir()
    monkeypatch.setattr(registry, "HERE", tmp_path)
    monkeypatch.setattr(own_algorithms, "__path__", [str(file.parent)])
    monkeypatch.delitem(sys.modules, "recipes.algorithms.unfinished", raising=False)

    def write(top: str, body: str = "pass") -> Path:
        file.write_text(
            f"from composer.core import Algorithm\n{top}\n\nclass Unfinished(Algorithm):\n"
            f"    def __init__(self, most: int = 3) -> None:\n        {body}\n"
            "    def match(self, event, state):\n        return False\n"
            "    def apply(self, event, state, logger):\n        return None\n"
        )
        monkeypatch.setattr(registry, "table", lambda kind: registry.own(kind))
        for cached in (source.parse, source.classes, source.imports):
            cached.cache_clear()
        return file

    return write


@pytest.mark.parametrize(
    ("top", "body", "kind", "words"),
    [
        ("import kornya.filters", "pass", ModuleNotFoundError, "No module named 'kornya'"),
        ("", "import kornya", ModuleNotFoundError, "No module named 'kornya'"),
        ("from torch import tensr", "pass", ImportError, "cannot import name 'tensr'"),
        ("SIZES = = 3", "pass", SyntaxError, "invalid syntax"),
        ("SIZES = int('many')", "pass", ValueError, "invalid literal"),
        ("", "len(most)", TypeError, "has no len()"),
        ("", "int('many')", ValueError, "invalid literal"),
        ("import numpy", "numpy.stack([])", ValueError, "need at least one array"),  # numpy itself raises it
        ("def broken(value):\n    return value + 'a'", "broken(most)", TypeError, "unsupported operand"),
    ],
)
def test_a_bug_in_an_algorithm_keeps_its_traceback(
    written: Callable, top: str, body: str, kind: type[Exception], words: str
) -> None:
    file = written(top, body)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        registry.build("algorithm", "unfinished", {"most": 5})
    assert not isinstance(caught.value, ConfigError)
    assert str(file) in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("top", "body"),
    [
        ("", "raise ValueError(f'most is {most}: at least 6')"),
        ("def check(most):\n    raise TypeError(f'most is {most}: at least 6')", "check(most)"),
        ("import contextlib", "with contextlib.nullcontext(): raise ValueError(f'most is {most}: at least 6')"),
    ],
)
def test_an_argument_that_an_algorithm_rejects_is_a_sentence(written: Callable, top: str, body: str) -> None:
    written(top, body)
    with pytest.raises(ConfigError) as caught:
        registry.build("algorithm", "unfinished", {"most": 5})
    assert str(caught.value) == "algorithms.unfinished: Unfinished rejects its arguments: most is 5: at least 6"


def test_a_value_that_composers_class_rejects_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"speed_monitor\.window_size: SpeedMonitor rejects .* non-negative"):
        registry.build("callback", "speed_monitor", {"window_size": -5})
    monkeypatch.setattr(SpeedMonitor, "__init__", lambda _self: len(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no len"):  # no argument of the user's can be at fault
        registry.build("callback", "speed_monitor", {})


@pytest.mark.parametrize(
    ("kind", "name", "module", "words"),
    [
        ("logger", "comet", "comet_ml", "loggers.comet: comet_ml is not installed; type: pip install -c constraints"),
        ("logger", "slack", "slack_sdk", "slack_sdk is not installed; type: pip install -c constraints.txt slack_sdk"),
        ("logger", "tensorboard", "tensorboard", "pip install -c constraints.txt tensorboard"),
        ("logger", "neptune", "neptune", "pip install -c constraints.txt neptune"),
        ("callback", "mlperf", "mlperf_logging", "pip install 'mosaicml[mlperf]'"),  # Composer drops the cause
    ],
)
def test_a_missing_package_is_reported_under_its_pip_name(
    kind: str, name: str, module: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    args = {"root_folder": "x", "index": 0} if name == "mlperf" else {}
    with pytest.raises(ConfigError, match=re.escape(words)):
        registry.build(kind, name, args)


def test_our_callback_replaces_composers() -> None:
    assert registry.table("callback")["earlystopper"].module == "recipes.callbacks.early_stopper"
    assert not registry.is_installed("callback", "early_stopper") and registry.is_installed("callback", "lr_monitor")
    assert list(registry.signature("callback", "early_stopper"))[:2] == ["monitor", "dataloader_label"]
