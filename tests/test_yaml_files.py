"""YAMLs from a pipe, with sections that hold anchors, and with interpolations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import ConfigError, load

ROOT = Path(__file__).parent.parent


def problems(*words: str) -> list[str]:
    """Return the problems that load() reports for these words."""
    with pytest.raises(ConfigError) as error:
        load([*words, "dry_run=true"])
    return error.value.problems


def file(folder: Path, text: str) -> str:
    """Write a YAML with this text and return its path."""
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


def test_a_yaml_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def through_a_pipe() -> str:
        there, here = os.pipe()
        os.write(here, b"seed: 5\nrun_name: 007\n")
        os.close(here)
        return f"/dev/fd/{there}"

    config = load([through_a_pipe(), "dry_run=true"]).config
    assert (config.seed, config.run_name) == (5, "007")
    assert load([str(ROOT / "yamls/digits.yaml"), f"recipe_name={through_a_pipe()}"]).config.seed == 5
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a pipe can only be read once; give a file's path" in problems(through_a_pipe())[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_yaml_from_standard_input(name: str) -> None:
    code = "import sys; from config import load; print(load(sys.argv[1:]).config.seed)"
    words = [sys.executable, "-c", code, name, "dry_run=true"]
    done = subprocess.run(words, input="seed: 5\n", cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "5\n", done.stderr


@pytest.mark.parametrize("address", ["https://example.org/run.yaml", "s3://bucket/run.yaml"])
def test_a_yaml_elsewhere(address: str) -> None:
    expected = f"{address}: a YAML must be on this machine; copy it here first, and give its path"
    assert problems(address) == [expected]
    assert problems(str(ROOT / "yamls/digits.yaml"), f"recipe_name={address}") == [expected]


def test_a_folder_is_no_yaml(tmp_path: Path) -> None:
    assert f"{tmp_path}: this is a folder; give the path of a YAML (choose " in problems(str(tmp_path))[0]


def test_a_section_that_holds_anchors(tmp_path: Path) -> None:
    run = "{}: {{size: &size {{crop_size: 96}}}}\ntrain_dataset: {{<<: *size}}\neval_dataset: {{<<: *size}}\n"
    config = load([file(tmp_path, run.format("x-common")), "dry_run=true"]).config
    assert config.train_dataset.crop_size == config.eval_dataset.crop_size == 96
    (problem,) = problems(path := file(tmp_path, run.format("common")))
    told = "it only holds values for YAML anchors, name it x-"
    assert problem == f"common: no such key; if {told}common [{path}]"
    (problem,) = problems(path := file(tmp_path, "modle: &m {name: resnet18}\nmodel: *m\n"))
    assert problem == f"modle: no such key; did you mean model? If {told}modle [{path}]"
    (problem,) = problems(file(tmp_path, "modle: {name: resnet18}\n"))
    assert told not in problem
    recipe = file(tmp_path, "x-lr: &lr 1.5\noptimizer: {lr: *lr}\n")
    assert load([str(ROOT / "yamls/digits.yaml"), f"recipe_name={recipe}"]).config.optimizer["lr"] == 1.5


def test_variables_that_are_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is reported with its key, file and two remedies, and both remedies work."""
    monkeypatch.delenv("ROOT_OF_DATA", raising=False)
    text = "train_dataset: {path: '${oc.env:ROOT_OF_DATA}/a'}\nloggers: {wandb: {tags: ['${oc.env:ROOT_OF_DATA}']}}\n"
    path = file(tmp_path, text)
    told = (
        "${oc.env:ROOT_OF_DATA} needs the environment variable ROOT_OF_DATA, which is not set; put ROOT_OF_DATA=VALUE "
        f"before the command, or a default into the YAML: ${{oc.env:ROOT_OF_DATA,VALUE}} [{path}]"
    )
    assert problems(path) == [f"train_dataset.path: {told}", f"loggers.wandb.tags: {told}"]
    monkeypatch.setenv("ROOT_OF_DATA", "/data")
    assert load([path, "dry_run=true"]).config.train_dataset.path == "/data/a"
    monkeypatch.delenv("ROOT_OF_DATA")
    path = file(tmp_path, text.replace("DATA}", "DATA,/data}"))
    assert load([path, "dry_run=true"]).config.train_dataset.path == "/data/a"


def test_a_recipe_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, "recipe_name: ${oc.env:WANTED}\n")
    monkeypatch.setenv("WANTED", "mild")
    assert load([path, "dry_run=true"]).config.max_duration == "36ep"
    monkeypatch.delenv("WANTED")
    assert problems(path)[0].startswith("recipe_name: ${oc.env:WANTED} needs the environment variable WANTED")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("${nosuch}", "Interpolation key 'nosuch' not found"),
        ("${seed}", "Recursive interpolation detected"),
        ("${nosuch:1}", "Unsupported interpolation type nosuch"),
        ("${oc.decode:1,2,3}", "the resolver takes other arguments"),
    ],
)
def test_interpolations_that_cannot_be_resolved(value: str, why: str, tmp_path: Path) -> None:
    path = file(tmp_path, f"seed: '{value}'\n")
    assert problems(path) == [f"seed: {value} cannot be resolved: {why} [{path}]"]


def test_a_deprecated_key_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "seed: ${oc.deprecated:model.num_classes}\n")
    assert load([path, "dry_run=true"]).config.seed == 1000
    assert capsys.readouterr().err == ("'seed' is deprecated. Change your code and config to use 'model.num_classes'\n")


@pytest.mark.parametrize("levels", [45, 450])
@pytest.mark.parametrize("shape", ["[{}]", "{{a: {}}}"])
def test_deep_nesting_is_rejected(shape: str, levels: int, tmp_path: Path) -> None:
    left, right = shape.format("|").split("|")
    text = left * levels + "1" + right * levels
    assert problems(file(tmp_path, f"seed: {text}\n"))[0].endswith("cannot be read: it is nested too deeply")
    assert problems(str(ROOT / "yamls/digits.yaml"), f"seed={text}")[0].endswith("it is nested too deeply")
    assert problems(file(tmp_path, "a." * levels + "b: 1\n"))[0].endswith("cannot be read: it is nested too deeply")
