"""Merging the layers of a configuration, recording each value's layer, and reading old YAMLs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from common.trees import leaves
from config import ConfigError, check_world, complete, durations_of, is_made_on_demand, load
from config.load import defaults
from tests.configs import PUBLISHED, value_of, write

ROOT = Path(__file__).parent.parent
RESNET50 = str(ROOT / "yamls" / "resnet50.yaml")


@pytest.fixture
def empty(tmp_path: Path) -> str:
    """YAML of a run that sets only dry_run."""
    return write(tmp_path, "run.yaml", {"dry_run": True})


VALUES = {
    "seed": st.integers(0, 10),
    "max_duration": st.sampled_from(["20ep", "30ep", "40ep"]),
    "model.loss_name": st.sampled_from(["cross_entropy", "binary_cross_entropy"]),
    "train_dataset.crop_size": st.integers(32, 64),
    "optimizer.lr": st.floats(0.1, 2).map(lambda x: round(x, 3)),
    "algorithms.label_smoothing.smoothing": st.sampled_from([0.05, 0.1, 0.2]),
    "loggers.wandb.project": st.sampled_from(["a", "b"]),
}
LAYER = st.fixed_dictionaries({}, optional=VALUES)


@settings(max_examples=40, deadline=None)
@given(run=LAYER, recipe=LAYER, block=LAYER, typed=LAYER)
def test_later_layers_override_earlier_ones(run: dict, recipe: dict, block: dict, typed: dict) -> None:
    """Defaults < YAML < recipe < block < command line, for any mixture of values, each with its source."""
    with TemporaryDirectory() as folder:
        recipe_path = write(Path(folder), "mine.yaml", recipe)
        run_path = write(Path(folder), "run.yaml", {**run, "mine": block, "recipe_name": recipe_path})
        words = [f"{key}={value}" for key, value in typed.items()]
        got = load([run_path, "dry_run=true", *words])
    layers = {run_path: run, recipe_path: recipe, "block mine": block, "command line": typed}
    for key in VALUES:
        setters = [(name, layer[key]) for name, layer in layers.items() if key in layer]
        value = value_of(got.config, key)
        if setters:
            assert (got.sources[key], value) == setters[-1]
        else:
            standard = dict(leaves(defaults())).get(key)
            assert value == standard
            assert got.sources.get(key, "default") == "default"


def test_every_value_has_a_source(empty: str) -> None:
    run = load([empty, "recipe_name=hot", "loggers.wandb.init_kwargs={mode: offline}", "algorithms.sam=null"])
    keys = {key for key, _ in leaves(asdict(run.config))}
    assert keys == set(run.sources)
    assert run.yaml_path == empty
    assert run.argv[0] == empty
    assert not run.lenient


def test_command_line_beats_recipe(empty: str) -> None:
    """The published example trained 36 epochs with these arguments."""
    assert load([empty, "recipe_name=mild", "max_duration=20ep"]).config.max_duration == "20ep"


def test_algorithms_merge_under_any_spelling(empty: str) -> None:
    words = ["recipe_name=medium", "algorithms.SAM.interval=3", "algorithms.blur_pool=null"]
    algorithms = load([empty, *words]).config.algorithms
    assert algorithms["sam"] == {"rho": 0.5, "epsilon": 1e-12, "interval": 3}
    assert "blurpool" not in algorithms
    assert not load([empty, "recipe_name=medium", "algorithms=null"]).config.algorithms


def test_loggers_can_be_removed(empty: str) -> None:
    assert not load([empty, "loggers.progress_bar=null"]).config.loggers
    assert list(load([empty, "loggers.wandb.project=x"]).config.loggers) == ["progress_bar", "wandb"]


def test_added_algorithms_are_ordered(empty: str) -> None:
    order = list(load([empty, "recipe_name=mild", "algorithms.mixup={}", "algorithms.sam={}"]).config.algorithms)
    assert order.index("mixup") < order.index("label_smoothing")
    assert order[-1] == "sam"


def test_another_optimizer_drops_the_defaults_of_the_first(empty: str) -> None:
    run = load([empty, "optimizer.name=AdamW", "optimizer.lr=1e-3"])
    assert run.config.optimizer == {"name": "adamw", "lr": 1e-3}
    assert load([empty, "optimizer.name=decoupled_sgdw", "optimizer.lr=1"]).config.optimizer["momentum"] == 0.875


@pytest.mark.parametrize(
    "block", [{"model.loss_name": "binary_cross_entropy"}, {"model": {"loss_name": "binary_cross_entropy"}}]
)
def test_blocks_are_dotted_or_nested(tmp_path: Path, block: dict) -> None:
    path = write(tmp_path, "run.yaml", {"dry_run": True, "recipe_name": "baseline", "baseline": block})
    run = load([path])
    assert run.config.model.loss_name == "binary_cross_entropy"
    assert run.config.model.name == "resnet50"
    assert run.sources["model.loss_name"] == "block baseline"


def test_block_of_another_recipe_is_not_applied(tmp_path: Path) -> None:
    path = write(tmp_path, "run.yaml", {"dry_run": True, "recipe_name": "mild", "hot": {"seed": 99}})
    assert load([path]).config.seed == 17


def test_block_from_the_command_line(empty: str) -> None:
    """The published example's only way to override a recipe."""
    assert load([empty, "recipe_name=mild", "mild.max_duration=20ep"]).config.max_duration == "20ep"


def test_interpolations_are_resolved_after_merging(tmp_path: Path) -> None:
    same = "${train_dataset.batch_size}"
    tree = {"dry_run": True, "train_dataset": {"batch_size": 64}, "eval_dataset": {"batch_size": same}}
    path = write(tmp_path, "run.yaml", tree)
    assert load([path, "train_dataset.batch_size=128"]).config.eval_dataset.batch_size == 128


def test_old_keys_keep_their_meaning(empty: str) -> None:
    config = load([empty, "grad_accum=auto", "precision=amp"]).config
    assert (config.device_train_microbatch_size, config.grad_accum, config.precision) == ("auto", None, "amp_fp16")
    assert load([empty, "grad_accum=4"]).config.grad_accum == 4
    config = load([empty, "loggers.wandb.entity=me", "loggers.wandb.group=g", "loggers.wandb.project=p"]).config
    assert config.loggers["wandb"] == {"entity": "me", "group": "g", "project": "p"}


def test_keys_are_fixed_and_values_are_not(empty: str) -> None:
    config = load([empty]).config
    config.seed = 3
    config.train_dataset.path = "/somewhere"
    with pytest.raises(AttributeError, match="no_such_key"):
        config.no_such_key = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("duration", "ratio", "scale_warmup", "expected"),
    [
        ("90ep", 1.0, True, ("90ep", "8ep")),
        ("90ep", 0.36, True, ("32ep", "2.88ep")),
        ("90ep", 0.36, False, ("32ep", "8ep")),
        ("100ep", 0.29, False, ("29ep", "8ep")),
        ("90ep", 2.0, True, ("180ep", "16ep")),
        ("1001ba", 0.5, True, ("500ba", "4ep")),
    ],
)
def test_scaled_durations(duration: str, ratio: float, scale_warmup: bool, expected: tuple, empty: str) -> None:
    words = [f"max_duration={duration}", f"scale_schedule_ratio={ratio}", f"scheduler.scale_warmup={scale_warmup}"]
    length, warmup = durations_of(load([empty, *words]).config)
    assert (str(length), str(warmup)) == expected


def test_a_warmup_in_dur_is_not_scaled_twice(empty: str) -> None:
    _, warmup = durations_of(load([empty, "scheduler.t_warmup=0.1dur", "scale_schedule_ratio=0.5"]).config)
    assert str(warmup) == "0.1dur"


def test_check_world_names_the_nearest_sizes(empty: str) -> None:
    config = load([empty, "train_dataset.batch_size=100"]).config
    with pytest.raises(ConfigError, match=r"train_dataset.batch_size: 100 .* 8 devices; use 96 or 104"):
        check_world(config, 8)
    check_world(config, 4)
    config.train_dataset.batch_size = 3
    with pytest.raises(ConfigError, match="use 8"):
        check_world(config, 8)


def test_evaluation_alone_ignores_the_training_data(tmp_path: Path) -> None:
    evaluation = {"path": str(tmp_path), "batch_size": 8}
    path = write(tmp_path, "run.yaml", {"eval_dataset": evaluation, "is_train": False})
    words = ["train_dataset.batch_size=7", "train_dataset.resize_size=5", "device_train_microbatch_size=8"]
    config = load([path, *words, "grad_accum=null"]).config
    check_world(config, 8)
    config.grad_accum = 99
    check_world(config, 8)
    config.eval_dataset.batch_size = 9
    with pytest.raises(ConfigError) as error:
        check_world(config, 8)
    assert [line.split(":")[0] for line in error.value.problems] == ["eval_dataset.batch_size"]
    with pytest.raises(ConfigError) as error:
        load([path, *words, "is_train=true"])
    said = {line.split(":")[0] for line in error.value.problems}
    assert said == {"train_dataset.path", "train_dataset.resize_size", "device_train_microbatch_size"}


def test_a_tilde_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "images").mkdir()
    data = {"path": "~/images", "local": "~/cache", "preload": "~/copy"}
    tree = {"train_dataset": data, "eval_dataset": data, "runs_folder": "~/runs", "load_path": "~/a~b.pt"}
    config = load([write(tmp_path, "run.yaml", tree), "save_folder=~/saved/{run_name}"]).config
    for section in (config.train_dataset, config.eval_dataset):
        assert (section.path, section.local) == (f"{tmp_path}/images", f"{tmp_path}/cache")
        assert section.preload == f"{tmp_path}/copy"
    assert config.save_folder == f"{tmp_path}/saved/{{run_name}}"
    assert (config.runs_folder, config.load_path) == (f"{tmp_path}/runs", f"{tmp_path}/a~b.pt")
    assert complete(OmegaConf.create({**PUBLISHED, "load_path": "~/x"})).config.load_path == f"{tmp_path}/x"
    config = load([write(tmp_path, "s3.yaml", {"dry_run": True}), "load_path=s3://b/~/x"]).config
    assert config.load_path == "s3://b/~/x"


def test_checkpoints_are_saved_below_the_runs(empty: str) -> None:
    assert load([empty]).config.save_folder == "{runs_folder}/{run_name}/checkpoints"
    assert load([empty, "save_folder={runs_folder}/kept"]).config.save_folder == "{runs_folder}/kept"
    assert load([empty, "save_folder={run_name}"]).config.save_folder == "{run_name}"


def test_only_the_digits_folder_is_made_on_demand() -> None:
    assert all(map(is_made_on_demand, ("data/digits", "./data/digits", "data/digits/")))
    others = ("/data/digits", "digits", "daat/digits", "../data/digits", "data/digits/train", "s3://data/digits", "")
    assert not any(map(is_made_on_demand, others))


def test_resnet50_yaml_shows_every_key_and_its_default() -> None:
    shown = dict(leaves(yaml.safe_load(Path(RESNET50).read_text())))
    assert shown == dict(leaves(defaults()))
    lines = Path(RESNET50).read_text().splitlines()
    for line in lines[lines.index("# The run") :]:
        if line.strip() and not line.startswith("#") and not line.rstrip().endswith((":", "{}", "0.875")):
            assert "#" in line, f"no comment: {line}"


@pytest.mark.parametrize("recipe", ["baseline", "mild", "medium", "hot", "torchvision_v2_224", "rsb_a1", "rsb_a3"])
def test_digits_yaml_works_with_every_recipe(recipe: str) -> None:
    run = load([str(ROOT / "yamls" / "digits.yaml"), f"recipe_name={recipe}"])
    assert run.config.train_dataset.crop_size == run.config.eval_dataset.crop_size == 32
    assert durations_of(run.config)[0].value <= 12


def test_mcloud_parameters_are_a_configuration(tmp_path: Path) -> None:
    parameters = yaml.safe_load((ROOT / "yamls" / "mcloud_run.yaml").read_text())["parameters"]
    run = load([write(tmp_path, "parameters.yaml", parameters)])
    assert run.config.recipe_name == "mild"
    with pytest.raises(ConfigError, match="mcli run -f"):
        load([str(ROOT / "yamls" / "mcloud_run.yaml")])


@pytest.mark.slow
def test_configuration_imports_no_torch() -> None:
    """Reporting a typing error must not wait for torch."""
    code = (
        "import sys, config, config.dry_run, recipes.registry as r, recipes.schedules;"
        f"config.load([{RESNET50!r}, 'dry_run=true', 'recipe_name=hot']);"
        "[r.names(k) for k in r.PACKAGES];"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'composer', 'torchvision', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
