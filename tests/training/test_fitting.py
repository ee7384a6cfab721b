"""A checkpoint of another or damaged model is rejected, and following the advice works."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from main import cli
from tests.runs import small_yaml
from training.saved import read_file

pytestmark = pytest.mark.slow

SURGERY = {
    "blurpool": {"replace_maxpools": False},
    "stochastic_depth": {"target_layer_name": "ResNetBasicBlock", "drop_rate": 0.5},
}
NO_WORKERS = {"train_dataset__num_workers": 0, "eval_dataset__num_workers": 0}


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Checkpoint after one batch of a network with surgery, some of which shows in no tensor."""
    folder = tmp_path_factory.mktemp("blurred")
    here = Path.cwd()
    os.chdir(folder)
    changes = {"algorithms": SURGERY, "scheduler__t_warmup": "0ba", "max_duration": "1ba", **NO_WORKERS}
    assert cli([str(small_yaml(folder, image_folder, **changes)), "run_name=it"]) == 0
    os.chdir(here)
    return folder / "runs/it/checkpoints/ep0-ba1-rank0.pt"


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    """Return the message of a command line that must fail because of a user's mistake."""
    assert cli([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return re.sub(r"\s+", " ", said)


def advised(said: str) -> list[str]:
    """Return the words that a message says to type."""
    return re.findall(r"\S+=\S+", said.split("Type as well: ")[1])


def test_another_model(workdir: Path, image_folder: Path, blurred: Path, capsys: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder, model__name="resnet34", **NO_WORKERS)
    words = [yaml, f"load_path={blurred}", "is_train=false"]
    for more in ([], ["load_weights_only=true"]):
        said = refused(capsys, *words, *more)
        assert "looks like a resnet18 of 3 classes with BlurPool, but the model is a resnet34 of 3 classes;" in said
        assert "102 tensors are missing in it (module.layer1.2.conv1.weight, " in said
        assert "algorithms.blurpool.replace_maxpools=false" in said and "model.name=resnet18" in said
    assert cli([*map(str, words), *advised(said)]) == 0


def test_surgery_without_tensors(
    workdir: Path, image_folder: Path, blurred: Path, capsys: pytest.CaptureFixture
) -> None:
    """Residual branches are scaled by their keep rate, which no tensor shows."""
    yaml = small_yaml(workdir, image_folder, algorithms={"blurpool": SURGERY["blurpool"]}, **NO_WORKERS)
    words = [yaml, f"load_path={blurred}"]
    said = refused(capsys, *words, "is_train=false")
    assert "it was trained with StochasticDepth" in said and "algorithms.stochastic_depth.drop_rate=0.5" in said
    assert cli([*map(str, words), "is_train=false", *advised(said)]) == 0
    tuned = [*map(str, words), "load_weights_only=true", "max_duration=2ba", "save_folder=null"]
    assert cli(tuned) == 0, "weights alone may be trained without it"


DAMAGE: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "1 tensor is missing in it (module.bn1.weight)": lambda model: model.pop("module.bn1.weight"),
    "1 tensor is not in the model (module.more)": lambda model: model.update({"module.more": torch.zeros(1)}),
    "1 tensor is of another shape (module.bn1.bias [3] for [64])": lambda model: model.update(
        {"module.bn1.bias": torch.zeros(3)}
    ),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_model(
    said: str, workdir: Path, image_folder: Path, blurred: Path, capsys: pytest.CaptureFixture
) -> None:
    yaml = small_yaml(workdir, image_folder, algorithms=SURGERY, **NO_WORKERS)
    content = read_file(blurred, "it")
    DAMAGE[said](content["state"]["model"])
    torch.save(content, workdir / "changed.pt")
    for words in (["is_train=false"], ["load_weights_only=true"], ["max_duration=2ba"]):
        assert f"; {said}. Load another one" in refused(capsys, yaml, "load_path=changed.pt", *words)
    assert not Path("runs").exists()


def test_another_number_of_classes(
    workdir: Path, image_folder: Path, blurred: Path, capsys: pytest.CaptureFixture
) -> None:
    """Advice must not lead to another rejection: weights for three classes need three classes."""
    four = shutil.copytree(image_folder, workdir / "four")
    for split in ("train", "val"):
        shutil.copytree(four / split / "cat", four / split / "eel")
    yaml = small_yaml(workdir, four, model__num_classes=4, algorithms=SURGERY, **NO_WORKERS)
    for words in ([], ["is_train=false"]):
        said = refused(capsys, yaml, f"load_path={blurred}", *words)
        assert "label 2 was 'person' and is 'eel'" in said
        assert "Give the data set with its 3 classes, or train its weights on the new classes: " in said
    words = re.findall(r"\S+=\S+", said.split("on the new classes: ")[1])
    assert (
        cli([str(yaml), f"load_path={blurred}", "is_train=false", *words, "max_duration=2ba", "save_folder=null"]) == 0
    )
    assert "new head   fc.weight [3, 512] -> [4, 512]" in capsys.readouterr().out
    said = refused(capsys, yaml, f"load_path={blurred}", "load_weights_only=true")
    assert "is a resnet18 of 4 classes with BlurPool" in said
    assert (
        "Its weights have 3 classes: use data with these classes, or train a new head on them: load_path=null" in said
    )
    paths = [f"{section}.path={image_folder}" for section in ("train_dataset", "eval_dataset")]
    more = ["model.num_classes=3", "load_weights_only=true", "max_duration=2ba", "save_folder=null"]
    assert cli([str(yaml), *paths, f"load_path={blurred}", *more]) == 0
    assert cli([str(yaml), "max_duration=2ba", "save_folder=null", "run_name=anew"]) == 0


def test_a_folder_instead_of_a_checkpoint(
    workdir: Path, image_folder: Path, blurred: Path, capsys: pytest.CaptureFixture
) -> None:
    yaml = small_yaml(workdir, image_folder, algorithms=SURGERY, **NO_WORKERS)
    run = blurred.parents[1]
    for given in (run, f"{run}/", run / "checkpoints", f"{run}/checkpoints/"):
        said = refused(capsys, yaml, f"load_path={given}", "is_train=false")
        assert f"Type: load_path={run}/checkpoints/latest-rank0.pt" in said
    assert cli([str(yaml), f"load_path={run}/checkpoints/latest-rank0.pt", "is_train=false"]) == 0
