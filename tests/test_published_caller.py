"""The published example's callers, who pass their own merged configuration, get what they meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from config import ConfigError, complete, load
from tests.configs import PUBLISHED, write


def test_published_configuration_is_completed() -> None:
    run = complete(OmegaConf.create(PUBLISHED))
    assert run.lenient
    assert run.yaml_path is None
    assert (run.config.max_duration, run.config.scheduler.t_warmup) == ("1ba", "8ep")
    assert run.config.save_folder is None
    assert not run.config.algorithms


def test_published_caller_layers_recipe_own_values_and_block() -> None:
    run = complete(OmegaConf.create({**PUBLISHED, "recipe_name": "mild"}))
    config = run.config
    assert config.eval_dataset.resize_size == 232  # the caller's 256 equals the default: the recipe's value applies
    assert config.eval_dataset.crop_size == 16  # differs from the default: the caller's value applies
    assert config.train_dataset.crop_size == 160  # the block overrides the caller's own value
    assert config.max_duration == "2ba"
    assert config.model.loss_name == "binary_cross_entropy"
    assert list(config.algorithms)[-1] == "channels_last"
    assert run.sources["eval_dataset.resize_size"] == "recipes/mild.yaml"
    assert run.sources["max_duration"] == "block mild"


def test_published_caller_is_told_of_misspelled_keys() -> None:
    with pytest.raises(ConfigError, match=r"sed: no such key; did you mean seed\?"):
        complete(OmegaConf.create({**PUBLISHED, "sed": 3}))


def test_published_caller_may_warm_up_longer_than_the_run(tmp_path: Path) -> None:
    short = {**PUBLISHED, "max_duration": "2ep"}
    assert complete(OmegaConf.create(short)).config.max_duration == "2ep"
    with pytest.raises(ConfigError, match="t_warmup: a warm-up of 8ep takes up the whole run of 2ep"):
        load([write(tmp_path, "run.yaml", short)])
