"""Recipes that name a parent: merging, records, and mistakes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from config import ConfigError, load
from config.dry_run import show
from config.load import as_shipped
from recipes.__main__ import describe
from tests.configs import write
from training.earlier_run import plain

CARD = {"summary": "for this test"}
GRAND: dict[str, Any] = {
    "card": {"summary": "the first", "published": [{"top1": 1.0, "epochs": 90, "source": "a paper", "note": "x"}]},
    "max_duration": "90ep",
    "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.8},
    "scheduler": {"t_warmup": "3ep"},
    "algorithms": {"mixup": {"alpha": 0.3}, "blurpool": {}, "channels_last": {}},
}
PARENT = {"card": CARD, "based_on": "grand.yaml", "max_duration": "50ep", "algorithms": {"BlurPool": None}}
CHILD = {"card": CARD, "based_on": "sub/parent.yaml", "optimizer": {"lr": 0.1}, "algorithms": {"mixup": {"alpha": 0.4}}}


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder with child.yaml on sub/parent.yaml on sub/grand.yaml, and a run.yaml."""
    (tmp_path / "sub").mkdir()
    for name, tree in {"child": CHILD, "sub/parent": PARENT, "sub/grand": GRAND, "run": {"seed": 1}}.items():
        write(tmp_path, f"{name}.yaml", tree)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_states_its_differences(family: Path) -> None:
    run = load(["run.yaml", "recipe_name=child.yaml", "dry_run=true"])
    config = run.config
    assert (config.max_duration, config.scheduler.t_warmup) == ("50ep", "3ep")
    assert config.optimizer == {"name": "sgd", "lr": 0.1, "momentum": 0.8}
    assert config.algorithms == {"mixup": {"alpha": 0.4}, "channels_last": {}}
    keys = ("optimizer.lr", "max_duration", "optimizer.momentum", "seed")
    assert [run.sources[key] for key in keys] == ["child.yaml", "sub/parent.yaml", "sub/grand.yaml", "run.yaml"]
    assert all(run.is_of_recipe(key) for key in keys[:3]) and not run.is_of_recipe("seed")
    assert run.card == CARD, "published figures are those of the recipe itself"
    moved = str(family / "child.yaml")
    assert load(["run.yaml", f"recipe_name={moved}", "dry_run=true"]).config.optimizer == config.optimizer
    assert as_shipped(moved)["max_duration"] == "50ep"


def test_a_block_of_the_parent_counts_below_its_own(family: Path) -> None:
    blocks = {
        "grand": {"optimizer.lr": 0.3, "max_duration": "8ep"},
        "child": {"max_duration": "9ep"},
        "mild": {"seed": 9},
    }
    write(family, "run.yaml", {"seed": 1, **blocks})
    run = load(["run.yaml", "recipe_name=child.yaml", "parent.scheduler.t_warmup=1ep", "dry_run=true"])
    config = run.config
    assert (config.optimizer["lr"], config.max_duration, config.seed) == (0.3, "9ep", 1)
    assert config.scheduler.t_warmup == "1ep"
    assert [run.sources[key] for key in ("optimizer.lr", "max_duration")] == ["block grand", "block child"]


def test_another_optimizer_drops_the_parents_arguments(family: Path) -> None:
    write(family, "child.yaml", {**CHILD, "optimizer": {"name": "adamw", "lr": 0.1}})
    run = load(["run.yaml", "recipe_name=child.yaml", "dry_run=true"])
    assert run.config.optimizer == {"name": "adamw", "lr": 0.1}


def test_the_recorded_configuration_runs_as_it_stands(family: Path) -> None:
    run = load(["run.yaml", "recipe_name=child.yaml", "dry_run=true"])
    write(family, "recorded.yaml", {**plain(run), "recipe_name": None})
    again = load(["recorded.yaml"]).config
    again.recipe_name = "child.yaml"
    assert again == run.config


def test_parents_are_named(family: Path) -> None:
    run = load(["run.yaml", "recipe_name=child.yaml", "dry_run=true"])
    for shown in (lambda out: show(run, out), lambda out: describe(out, "child.yaml")):
        out = Console(width=120, record=True, file=io.StringIO())
        shown(out)
        text = out.export_text()
        assert "child, based on parent, based on grand" in text and "sub/parent.yaml" in text


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ({"based_on": "mldi"}, "child.yaml: based_on: unknown recipe 'mldi'; did you mean mild? (choose adam, "),
        ({"based_on": "sub/no.yaml"}, "child.yaml: based_on: sub/no.yaml: no such file"),
        ({"based_on": 7}, "child.yaml: based_on: 7 given, but it must be the name of a recipe, or the path of a YAML"),
        ({"based_on": "child.yaml"}, "child.yaml is based on itself; remove one of the keys based_on"),
        ({"based_on": "loop.yaml"}, "child.yaml: based_on: loop.yaml: based_on: ./child.yaml is based on itself"),
        ({"card": {}}, "child.yaml: a card is not inherited; add card: {summary: what differs from sub/parent.yaml}"),
        ({"recipe_name": "mild"}, "child.yaml: recipe_name has no effect in a recipe; remove it, or call it"),
        ({"algorithms": {"sam": None}}, "algorithms.sam: an empty value removes it (child.yaml), but no earlier layer"),
    ],
)
def test_mistakes(family: Path, child: dict[str, Any], said: str) -> None:
    write(family, "loop.yaml", {"card": CARD, "based_on": "./child.yaml"})
    write(family, "child.yaml", {**CHILD, **child})
    with pytest.raises(ConfigError) as caught:
        load(["run.yaml", "recipe_name=child.yaml", "dry_run=true"])
    assert said in str(caught.value)


def test_a_run_has_no_parent(family: Path) -> None:
    with pytest.raises(ConfigError, match=r"based_on: no such key; did you mean recipe_name\?"):
        load(["run.yaml", "based_on=mild", "dry_run=true"])


def test_a_file_may_have_the_name_of_its_parent(family: Path) -> None:
    (family / "mild.yaml").write_text(yaml.safe_dump({"card": CARD, "based_on": "mild", "max_duration": "9ep"}))
    config = load(["run.yaml", "recipe_name=mild.yaml", "dry_run=true"]).config
    assert (config.max_duration, config.train_dataset.crop_size) == ("9ep", 176)
