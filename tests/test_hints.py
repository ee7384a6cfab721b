"""Keys of Composer, of its older YAMLs and of the shell are recognized, and the error names the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import ConfigError, load
from config.schema import Model, TrainDataset, hints_of


def problems(text: str, folder: Path, *words: str) -> list[str]:
    """Return the problems that load() reports, without their layers."""
    path = folder / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load([str(path), "dry_run=true", *words])
    return [problem.partition(" [")[0] for problem in error.value.problems]


OLD_YAML = """
train_dataset: {imagenet: {resize_size: 256}}
val_dataset: {imagenet: {crop_size: 224}}
model: {resnet: {model_name: resnet50}}
optimizer: {decoupled_sgdw: {lr: 2.0, momentum: 0.875}}
schedulers: [{cosine_decay_with_warmup: {t_warmup: 8ep}}]
train_batch_size: 2048
eval_batch_size: 1024
validate_every_n_epochs: 1
eval_interval: 1
deterministic_mode: false
"""


def test_a_yaml_of_older_composers(tmp_path: Path) -> None:
    found = problems(OLD_YAML, tmp_path)
    assert sorted(found) == sorted(
        [
            f"train_dataset.imagenet: no such key (the keys are {', '.join(hints_of(TrainDataset))}); "
            "a name is not a level here, so write "
            "train_dataset: {path: /data/imagenet, batch_size: 2048}",
            f"model.resnet: no such key (the keys are {', '.join(hints_of(Model))}); "
            "a name is not a level here, so write model: {name: resnet50, num_classes: 1000}",
            "val_dataset: no such key; did you mean eval_dataset?",
            "schedulers: no such key; did you mean scheduler?",
            "train_batch_size: no such key; did you mean train_dataset.batch_size?",
            "eval_batch_size: no such key; did you mean eval_dataset.batch_size?",
            "validate_every_n_epochs: no such key; did you mean eval_interval?",
            "deterministic_mode: no such key; did you mean deterministic?",
            "eval_interval: '1' is not a duration; write a number and a unit, as in 1ep",
            "optimizer.decoupled_sgdw: no such key; the optimizer's name is not a level, so write "
            "optimizer: {name: decoupled_sgdw, lr: 2.0, momentum: 0.875}",
        ]
    )


@pytest.mark.parametrize("word", ["S3_ENDPOINT_URL=http://localhost:9000", "WANDB_MODE=offline", "OMP_NUM_THREADS=1"])
def test_an_environment_variable_after_the_command(word: str, tmp_path: Path) -> None:
    name = word.partition("=")[0]
    expected = f"{name}: no such key; put an environment variable before the command: {name}=... python main.py"
    assert problems("", tmp_path, word) == [expected]


@pytest.mark.parametrize("key", ["max_duration", "save_interval", "algorithms.ema.half_life"])
def test_a_number_without_a_unit(key: str, tmp_path: Path) -> None:
    (problem,) = problems("", tmp_path, f"{key}=17")
    assert problem == f"{key}: '17' is not a duration; write a number and a unit, as in 17ep"


def test_a_dotted_key_without_a_value(tmp_path: Path) -> None:
    for word, meant in (("loggers.wandb", "loggers.wandb"), ("modle.name", "model.name")):
        assert problems("", tmp_path, word) == [f"{word}: not of the form key=value; did you mean {meant}=...?"]
    assert problems("", tmp_path, "path=/x") == ["path: no such key; did you mean train_dataset.path?"]


def test_a_command_without_a_yaml() -> None:
    """The advised command starts a run."""
    with pytest.raises(ConfigError, match=r"type: python main\.py yamls/digits\.yaml seed=3$"):
        load(["--version", "seed=3"])


def test_one_mistake_is_reported_once(tmp_path: Path) -> None:
    """A mistyped optimizer also lacks a learning rate, which is not a second mistake."""
    for words in (["recipe_name=onecycle", "optimizer.name=sdg"], ["scheduler.eta_min=0.1", "optimizer.name=sdg"]):
        (problem,) = problems("", tmp_path, *words)
        assert problem.startswith("optimizer.name: unknown value 'sdg'; did you mean sgd?")
    (problem,) = problems("", tmp_path, "recipe_name=onecycle", "optimizer.name=adam")
    assert problem.startswith("optimizer.lr: missing; adam needs a learning rate")
