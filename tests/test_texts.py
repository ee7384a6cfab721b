"""Keys of type str keep what was written, even if YAML would read a number, a boolean or a date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config import ConfigError, load
from tests.configs import value_of

ROOT = Path(__file__).parent.parent
RESNET50 = str(ROOT / "yamls" / "resnet50.yaml")
LOOKS = (
    "007",
    "1.10",
    "1e3",
    "12e4567",
    "on",
    "No",
    "0x1F",
    "0b11",
    "1_000",
    "12:30:45",
    "2001-01-01",
    ".5",
    "nan",
    "None",
)
KEYS = (
    "run_name",
    "runs_folder",
    "save_folder",
    "load_path",
    "train_dataset.path",
    "eval_dataset.local",
    "loggers.wandb.project",
    "loggers.MLFlow.experiment_name",
    "loggers.tensorboard.log_dir",
    "callbacks.checkpoint_saver.folder",
)


def value(key: str, *words: str) -> Any:
    """Return the value at a key for a command line."""
    return value_of(load([*words, "dry_run=true"]).config, key.replace("MLFlow", "mlflow"))


@pytest.mark.parametrize("key", KEYS)
def test_every_string_key_keeps_what_was_written(key: str, tmp_path: Path) -> None:
    assert value(key, RESNET50, f"{key}=007") == "007"
    path = tmp_path / "run.yaml"
    path.write_text(f"{key}: 1.10\n" if key.count(".") < 2 else "{}: {{{}: {{{}: 1.10}}}}\n".format(*key.split(".")))
    assert value(key, str(path)) == "1.10"


@pytest.mark.parametrize("text", LOOKS)
def test_strings_that_look_like_other_types(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for written in (text, f"'{text}'"):
        assert value("run_name", RESNET50, f"run_name={written}") == text
        path.write_text(f"run_name: {written}\n")
        assert value("run_name", str(path)) == text


@pytest.mark.parametrize("text", ["a #b", "#1", "a=b", "x:y"])
def test_yaml_syntax_in_a_word_is_kept(text: str) -> None:
    assert value("run_name", RESNET50, f"run_name={text}") == text


@pytest.mark.parametrize("text", ["null", "~", "Null", "NULL", ""])
def test_null_stays_null(text: str) -> None:
    assert value("run_name", RESNET50, f"run_name={text}") is None
    assert value("save_folder", RESNET50, f"save_folder={text}") is None


def test_strings_in_other_positions(tmp_path: Path) -> None:
    """Blocks for a recipe, mappings on the command line, dotted keys, lists of strings, anchors, and !!str."""
    assert value("run_name", RESNET50, "recipe_name=mild", "mild.run_name=007") == "007"
    assert value("loggers.wandb.project", RESNET50, "loggers={wandb: {project: 007}}") == "007"
    assert value("loggers.wandb.tags", RESNET50, "loggers.wandb.tags=[007, 1.10, b]") == ["007", "1.10", "b"]
    assert value("run_name", RESNET50, "run_name=!!str 007") == "007"
    path = tmp_path / "run.yaml"
    path.write_text(
        "x-all: &all {path: 1.10}\ntrain_dataset: {<<: *all}\neval_dataset.path: 1e3\nmild: {run_name: on}\n"
    )
    assert value("train_dataset.path", str(path)) == "1.10"
    assert value("eval_dataset.path", str(path)) == "1e3"
    assert value("run_name", str(path), "recipe_name=mild") == "on"


def test_numeric_keys_read_numbers() -> None:
    assert value("seed", RESNET50, "seed=0x1F") == 31
    assert value("device_train_microbatch_size", RESNET50, "device_train_microbatch_size=16") == 16
    assert value("train_dataset.batch_size", RESNET50, "train_dataset.batch_size=2048.0") == 2048


def test_an_error_shows_what_was_typed() -> None:
    for word, shown in (("model.name=1e3", "'1e3'"), ("recipe_name=007", "'007'"), ("python_log_level=off", "'off'")):
        with pytest.raises(ConfigError, match=shown):
            load([RESNET50, word])
