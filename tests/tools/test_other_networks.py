"""Runs of networks that are not ResNets: trained for two batches, evaluated, predicted with and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from config import ConfigError, load
from main import main
from tests.runs import small_yaml
from tools.evaluate.__main__ import run as evaluate
from tools.export.__main__ import run as export
from tools.predict.__main__ import run as predict

pytestmark = pytest.mark.slow
LARGER = ["train_dataset.crop_size=32", "eval_dataset.resize_size=32", "eval_dataset.crop_size=32"]
NETWORKS = {
    "squeezenet1_1": [*LARGER, "algorithms.ema.half_life=1ba"],
    "mobilenet_v3_small": [
        "model.loss_name=binary_cross_entropy",
        "optimizer.weight_decay_on=weights",
        "optimizer.head_lr_multiplier=2",
    ],
}
REFUSED = {
    "algorithms.progressive_resizing.mode=resize": "algorithms.progressive_resizing: changes the image size, but timm:",
    "eval_dataset.crop_size=20": "eval_dataset.crop_size: 20 given, but timm:test_vit is trained at 16 px",
    "train_dataset.crop_size=1 eval_dataset.crop_size=1": "model.name: timm:test_vit does not work with images of 1 px",
}


def trained(name: str, image_folder: Path, *words: str) -> Path:
    """Return the folder of a run of two batches of 6 images of 16 px, from runs/ of the working folder."""
    short = ["max_duration=2ba", "scheduler.t_warmup=0ba", "train_dataset.batch_size=6", "model.init=torchvision"]
    short += ["train_dataset.num_workers=0", "eval_dataset.num_workers=0", f"run_name={name.replace(':', '-')}"]
    main(load([str(small_yaml(Path.cwd(), image_folder)), f"model.name={name}", *short, *words])).close()
    return Path("runs", name.replace(":", "-"))


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvisions(name: str, workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Weights load in torchvision, programs and predictions give the run's answers; timm's folder is not for them."""
    run = trained(name, image_folder, *NETWORKS[name])
    capsys.readouterr()
    assert predict([str(run), f"{image_folder}/val/cat", "--format=jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert export([str(run), "-o", "out", "--format", "pth", "torchscript"]) == 0
    assert capsys.readouterr().out.count(", 0 with another top-1") == 2
    assert export([str(run), "-o", "out", "--format", "hub"]) == 2
    assert f"--format hub: timm's networks have other layers than torchvision's {name}" in capsys.readouterr().err
    tuned = [f"model.weights={run}", "model.freeze=backbone", "run_name=tuned"]
    trained(name, image_folder, *NETWORKS[name], *tuned)
    said = capsys.readouterr().out
    assert "kept: the data have the same 3 classes" in said and "; frozen: backbone" in said


def test_timms(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A transformer is built for the run's size; timm loads its folder, which names timm's own architecture."""
    timm = pytest.importorskip("timm")
    run = trained("timm:test_vit", image_folder)
    assert export([str(run), "-o", "out", "--format", "pth", "timm", "pt2"]) == 0
    about = json.loads(Path("out/timm-test_vit-timm/config.json").read_text())
    assert about["architecture"] == "test_vit" and about["pretrained_cfg"]["fixed_input_size"]
    network = timm.create_model("local-dir:out/timm-test_vit-timm", pretrained=True).eval()
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert evaluate([str(run), "--no-flip", "--gallery=0", "-o", "seen"]) == 0
    capsys.readouterr()
    for program, words in ((evaluate, ["--sizes", "32"]), (export, ["--format", "pth", "--size", "32"])):
        assert program([str(run), "-o", "other", *words]) == 2
        assert " 32: timm:test_vit takes images of 16 px only; leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("words", REFUSED)
def test_what_timms_transformer_cannot_do(words: str, workdir: Path, image_folder: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError) as error:
        trained("timm:test_vit", image_folder, *words.split())
    assert error.value.problems[0].startswith(REFUSED[words])
    assert not Path("runs/timm-test_vit/metrics.csv").exists()
