"""Runs that start from pretrained weights: what they record, how they resume, and their advice."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import save_file

from main import cli
from tests.following import assert_advice_trains, for_both
from tests.image_files import make_shards
from tests.pretrained import Convolutional, resnet18
from tests.runs import assert_same_weights, small_yaml
from tests.s3 import upload
from tools.evaluate.__main__ import run as evaluate

pytestmark = pytest.mark.slow

NO_WORKERS = {"train_dataset__num_workers": 0, "eval_dataset__num_workers": 0}
SHORT = {**NO_WORKERS, "max_duration": "1ba", "scheduler__t_warmup": "0ba"}


@pytest.fixture(autouse=True)
def small(workdir: Path, few_channels: None) -> None:
    """Each test in its folder, with a ResNet-18 of few channels."""


def test_a_fine_tuned_run(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Its record names the weights and is whole; it resumes to the same bits, and is evaluated, without their file."""
    torch.save(resnet18(1000), "w.pth")
    own = str(small_yaml(workdir, image_folder, **NO_WORKERS))
    words = [own, "model.weights=w.pth", "model.num_classes=auto"]
    assert cli([*words, "run_name=whole"]) == 0
    said = capsys.readouterr().out
    assert "loaded     126 tensors" in said and "new head   fc.weight [1000, 64] -> [3, 64]" in said
    assert "the weights have 1000 classes, the data 3" in said and "ignored    nothing" in said
    recorded = yaml.safe_load(Path("runs/whole/config.yaml").read_text())["model"]
    assert (recorded["num_classes"], recorded["weights"]) == (3, "w.pth")
    assert yaml.safe_load(Path("runs/whole/baseline.yaml").read_text())["model"]["num_classes"] != "auto"
    shutil.copytree("runs/whole", "runs/half", symlinks=True)
    for name in ("ep2-ba8-rank0.pt", "latest-rank0.pt", "best-rank0.pt"):
        Path("runs/half/checkpoints", name).unlink()
    Path("runs/half/summary.json").unlink()
    Path("w.pth").unlink()
    assert cli([*words, "run_name=half", "autoresume=true"]) == 0
    said = capsys.readouterr().out
    assert "resuming from runs/half/checkpoints/ep1-ba4-rank0.pt" in said and "weights:" not in said
    assert_same_weights(*(Path("runs", run, "checkpoints/ep2-ba8-rank0.pt") for run in ("whole", "half")))
    for run in ("whole", "half"):
        for name in ("environment.json", "summary.json"):
            weights = json.loads(Path("runs", run, name).read_text())["weights"]
            assert weights["source"] == "w.pth" and re.fullmatch("[0-9a-f]{64}", weights["sha256"])
    checkpoint = "load_path=runs/half/checkpoints/best-rank0.pt"
    assert cli(["runs/half/config.yaml", "is_train=false", checkpoint]) == 0
    assert evaluate(["runs/half"]) == 0
    capsys.readouterr()
    assert cli([*words, "run_name=other", "autoresume=true"]) == 2
    assert "no such file or folder: w.pth" in capsys.readouterr().err and not Path("runs/other").exists()


def test_pretrained_weights_are_evaluated(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Without a checkpoint; nothing is written."""
    save_file(resnet18(), "w.safetensors")
    own = str(small_yaml(workdir, image_folder, model__num_classes="auto", **NO_WORKERS))
    assert cli([own, "is_train=false", "model.weights=w.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "head       kept" in said and "untrained" not in said and not Path("runs").exists()


def test_a_run_is_the_network_that_it_records(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Weights of a network with BlurPool never make one of a configuration without it."""
    own = str(small_yaml(workdir, image_folder, **SHORT))
    assert cli([own, "run_name=blurred", "algorithms.blurpool.min_channels=8"]) == 0
    best = "runs/blurred/checkpoints/best-rank0.pt"
    for number, words in enumerate((["model.weights=runs/blurred"], [f"load_path={best}", "load_weights_only=true"])):
        assert cli([own, *words, f"run_name=tuned{number}"]) != 0
        advised = re.findall(r"algorithms\.\S+=\S+", capsys.readouterr().err)
        assert "algorithms.blurpool.min_channels=8" in advised
        assert cli([own, *words, f"run_name=tuned{number}", *advised]) == 0
        recorded = yaml.safe_load(Path(f"runs/tuned{number}/config.yaml").read_text())
        assert recorded["algorithms"]["blurpool"]["min_channels"] == 8


def test_parameters_that_surgery_adds_are_counted(
    workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save(resnet18(), "w.pth")
    own = str(small_yaml(workdir, image_folder, **SHORT, algorithms={"squeeze_excite": {"min_channels": 8}}))
    assert cli([own, "model.weights=w.pth", "save_folder=null"]) == 0
    assert re.search(r"untrained  [\d,]+ parameters that the recipe's algorithms add", capsys.readouterr().out)


def test_weights_in_s3(s3_server: str, workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A file and a Hub folder, with the names of its classes; nothing of them is left on the disk."""
    Path("hub").mkdir()
    save_file(resnet18(), "hub/model.safetensors")
    Path("hub/config.json").write_text(json.dumps({"label_names": ["x", "y", "z"]}))
    upload(workdir / "hub", "weights", "hub")
    own = str(small_yaml(workdir, image_folder, **SHORT, save_folder=None))
    assert cli([own, "model.weights=s3://weights/hub/model.safetensors"]) == 0
    assert "weights: s3://weights/hub/model.safetensors, SHA-256" in capsys.readouterr().out
    assert cli([own, "model.weights=s3://weights/hub"]) == 0
    assert "label 0 was 'x' and is 'cat' in the data" in capsys.readouterr().out
    assert cli([own, "model.weights=s3://weights/hubb"]) == 2
    assert (
        "no such file or folder: s3://weights/hubb; did you mean model.weights=s3://weights/hub?"
        in capsys.readouterr().err
    )


def resnet34() -> dict[str, torch.Tensor]:
    """Return the tensors of a ResNet-34, all zero, which take no room in a file."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in torchvision.models.resnet34(num_classes=3).state_dict().items()}
    return {name: torch.zeros(1).expand(shape) if shape else torch.tensor(0) for name, shape in shapes.items()}


def file(content: object, *words: str) -> Callable[[Path, Path], list[str]]:
    """A mistake with a file of weights, w.pth."""

    def write(folder: Path, image_folder: Path) -> list[str]:
        torch.save(content() if callable(content) else content, folder / "w.pth")
        return list(words)

    return write


def with_hub(folder: Path, image_folder: Path) -> list[str]:
    """A Hub folder whose config.json is damaged."""
    (folder / "hub").mkdir()
    save_file(resnet18(), folder / "hub/model.safetensors")
    (folder / "hub/config.json").write_text("{")
    return ["model.weights=hub"]


def with_nameless_shards(folder: Path, image_folder: Path) -> list[str]:
    """Shards that name no classes."""
    make_shards(image_folder, folder / "shards")
    return [*for_both("path=shards", "is_streaming=true", "local=cache"), "model.num_classes=auto"]


def with_squeezed(folder: Path, image_folder: Path) -> list[str]:
    """A run whose surgery renames tensors."""
    words = ["algorithms.squeeze_excite.min_channels=8"]
    own = str(small_yaml(folder, image_folder, **SHORT))
    assert cli([own, "run_name=squeezed", *words]) == 0
    return ["model.weights=runs/squeezed", "run_name=tuned", *words]


MISTAKES: dict[str, Callable[[Path, Path], list[str]]] = {
    "architecture": file(resnet34, "model.weights=w.pth"),
    "head": file(lambda: resnet18(7), "model.weights=w.pth", "model.head=keep"),
    "evaluation": file(lambda: resnet18(7), "model.weights=w.pth", "is_train=false"),
    "load_path": file(resnet18, "load_path=w.pth", "load_weights_only=true"),
    "no head": file(
        lambda: Convolutional(3).state_dict(),
        "model.weights=w.pth",
        "model.head=new",
        "model.name=tests.pretrained:Convolutional",
    ),
    "config.json": with_hub,
    "classes": with_nameless_shards,
    "surgery": with_squeezed,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_advice_makes_the_run_train(
    mistake: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    def start(folder: Path) -> list[str]:
        words = MISTAKES[mistake](folder, image_folder)
        return [str(small_yaml(folder, image_folder, **SHORT)), *words]

    assert_advice_trains(start, lambda word: word.replace("=NUMBER", "=3"), workdir, capfd)
