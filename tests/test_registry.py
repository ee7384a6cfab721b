"""Names become classes: spellings, precedence, arguments read from source, and objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config import ConfigError
from recipes import registry
from recipes.annotations import describe, fits

ROOT = Path(__file__).parent.parent


def test_names_have_many_spellings() -> None:
    assert {registry.canonical("algorithm", w) for w in ("blurpool", "blur_pool", "BlurPool")} == {"blurpool"}
    assert {registry.canonical("logger", w) for w in ("wandb", "WandBLogger", "wandb_logger")} == {"wandb"}
    assert {registry.canonical("logger", w) for w in ("comet", "comet_ml", "CometMLLogger")} == {"cometml"}
    assert {"tensorboard", "mlflow", "file", "console", "progress_bar"} <= set(registry.names("logger"))
    assert {"speed_monitor", "lr_monitor", "mlperf"} <= set(registry.names("callback"))
    assert {"sgd", "adam", "adamw", "rmsprop", "decoupled_sgdw"} <= set(registry.names("optimizer"))
    assert registry.canonical("algorithm", "nonsense") == "nonsense"


def test_our_algorithms_win_over_composers() -> None:
    for file in (ROOT / "recipes" / "algorithms").glob("[!_]*.py"):
        assert registry.table("algorithm")[file.stem.replace("_", "")].file == file
    assert "max_sizes" in registry.signature("algorithm", "progressive_resizing")


def test_signatures_read_from_source_are_the_real_ones() -> None:
    import inspect

    import torch.optim

    for name, cls in {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}.items():
        real = {key: p.default for key, p in inspect.signature(cls).parameters.items() if key != "params"}
        assert {key: p.default for key, p in registry.signature("optimizer", name).items()} == real


def test_build_makes_the_object_or_a_sentence() -> None:
    monitor: Any = registry.build("callback", "speed_monitor", {"window_size": 7})
    assert type(monitor).__name__ == "SpeedMonitor"
    with pytest.raises(ConfigError, match=r"callbacks\.speed_monitor\.window_sise.*did you mean window_size"):
        registry.build("callback", "speed_monitor", {"window_sise": 7})
    with pytest.raises(ConfigError, match=r"algorithms\.mixup: .* refuses its arguments"):
        registry.build("algorithm", "mixup", {"alpha": -1.0})


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("float", [1, 1.5], ["1", True, None]),
        ("Optional[int]", [1, None], [1.5, "1"]),
        ("int | str | None", [1, "a", None], [1.5, []]),
        ("Union[str, Time]", ["a", 3, object()], []),  # Time is not ours to judge
        ("'bool'", [True], [1]),
        ("Literal['block', 'sample']", ["block"], ["blocks"]),
        ("Sequence[float]", [[1.0]], ["ab", 1]),
        ("dict[str, Any]", [{}], [[]]),
    ],
)
def test_only_obvious_misfits_count(annotation: str, good: list, bad: list) -> None:
    assert all(fits(value, annotation) for value in good)
    assert not any(fits(value, annotation) for value in bad)


def test_annotations_in_words() -> None:
    assert describe("Optional[float]") == "a number or null"
    assert describe("int | bool") == "a whole number or true or false"


def test_a_class_without_init_takes_its_base_class_arguments(tmp_path: Path) -> None:
    file = tmp_path / "derived.py"
    file.write_text("from composer.callbacks import SpeedMonitor as Base\n\n\nclass Mine(Base):\n    pass\n")
    assert "window_size" in registry._parameters(file, "Mine", set())
    assert registry.derives(file, "Mine", "Callback")


def test_our_callback_stands_for_composers() -> None:
    assert registry.table("callback")["earlystopper"].module == "recipes.callbacks.early_stopper"
    assert not registry.is_installed("callback", "early_stopper") and registry.is_installed("callback", "lr_monitor")
    assert list(registry.signature("callback", "early_stopper"))[:2] == ["monitor", "dataloader_label"]
