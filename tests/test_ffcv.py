"""The recipes ffcv_*: FFCV's own log and code, to the digit."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from config import durations_of, load
from config.dry_run import size_per_epoch
from main import main
from recipes import registry
from recipes.schedules import learning_rate
from tests.algorithms.tiny import trainer
from tests.image_files import make_imagefolder
from tests.runs import ROOT
from training import build

LOG = Path(__file__).parent / "golden/ffcv_lr.csv"
RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}
"""Epochs -> start_ramp and end_ramp of rn50_configs and rn18_configs."""
RECIPES = [f"ffcv_{model}{epochs}" for model in ("", "rn18_") for epochs in RAMPS]
NAMED = ("ffcv_16", "ffcv_rn18_16")


def shipped(recipe: str):
    return load([str(ROOT / "yamls/resnet50.yaml"), f"recipe_name={recipe}", "dry_run=true"]).config


def test_the_learning_rate_is_that_of_its_log() -> None:
    """In the last step of every epoch; the log has each run's last epoch twice."""
    with LOG.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert len(rows) == 262 and {int(row["epochs"]) for row in rows} == set(RAMPS)
    for epochs in RAMPS:
        config = shipped(f"ffcv_{epochs}")
        peak = config.optimizer["lr"]
        curve = learning_rate(config.scheduler, peak, epochs * 312, 2 * 312, 312)
        mine = [row for row in rows if int(row["epochs"]) == epochs]
        assert config.max_duration == f"{epochs}ep" and len(mine) == epochs + 1
        for row in mine:
            found = peak * curve(int(row["epoch"]) * 312 + 311)
            assert found == pytest.approx(float(row["current_lr"]), abs=3e-15)


def resolution(epoch: int, start: int, end: int) -> int:
    """get_resolution of the source, from 160 to 192 px."""
    if epoch <= start or epoch >= end:
        return 160 if epoch <= start else 192
    return round((160 + 32 * (epoch - start) / (end - start)) / 32) * 32


@pytest.mark.parametrize("recipe", RECIPES)
def test_sizes_are_those_of_its_code(recipe: str) -> None:
    config, epochs = shipped(recipe), int(recipe.rpartition("_")[2])
    found = size_per_epoch(config, durations_of(config)[0])
    assert found == [resolution(epoch, *RAMPS[epochs]) for epoch in range(epochs)]


def test_resnet18_differs_in_four_values() -> None:
    for epochs in RAMPS:
        one, other = shipped(f"ffcv_{epochs}"), shipped(f"ffcv_rn18_{epochs}")
        assert (other.model.name, other.train_dataset.batch_size) == ("resnet18", 1024)
        assert (other.optimizer.pop("lr"), other.optimizer.pop("weight_decay")) == (0.5, 5e-5)
        assert (one.optimizer.pop("lr"), one.optimizer.pop("weight_decay")) == (1.7, 1e-4)
        assert (one.optimizer, one.algorithms, one.scheduler) == (other.optimizer, other.algorithms, other.scheduler)
        assert one.eval_dataset == other.eval_dataset and one.max_duration == other.max_duration


class BlurPoolConv2d(nn.Module):
    """Stands for the source's class: a blur of stride 1, padded with zeros, then the convolution with its stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, kernel = conv, torch.tensor([1.0, 2.0, 1.0]) / 4
        self.kernel = torch.outer(kernel, kernel).repeat(conv.in_channels, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.conv2d(x, self.kernel, padding=1, groups=self.conv.in_channels))


@pytest.mark.slow
def test_the_network_is_that_of_its_code() -> None:
    """Convolutions with a stride and at least 16 inputs are blurred: 6 of a ResNet-18; the max-pool is not."""
    config = shipped("ffcv_rn18_16")
    config.model.num_classes = 10  # as many as the trainer's images have
    ours = build.model(config).module
    theirs = copy.deepcopy(ours)
    trainer([registry.build("algorithm", "blurpool", config.algorithms["blurpool"])], model=ours)
    convs = [(m, n, c) for m in theirs.modules() for n, c in m.named_children() if isinstance(c, nn.Conv2d)]
    blurred = [(m, n, c) for m, n, c in convs if max(c.stride) > 1 and c.in_channels >= 16]
    for module, name, conv in blurred:
        setattr(module, name, BlurPoolConv2d(conv))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert len(blurred) == 6
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", NAMED)
def test_weight_decay_goes_by_name(recipe: str) -> None:
    """The BatchNorms of the shortcuts and fc.bias are decayed."""
    config = shipped(recipe)
    model = build.model(config)
    optimizer, names = build.optimizer(config, model), {id(p): n for n, p in model.module.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == {name for name, _ in model.module.named_parameters()}
    assert all((rate == 0) == ("bn" in name) for name, rate in decay.items())
    if recipe == "ffcv_16":
        assert sum(rate == 0 for rate in decay.values()) == 98 and decay["layer1.0.downsample.1.weight"] == 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("recipe", NAMED)
def test_one_batch(recipe: str, tmp_path: Path) -> None:
    """Trains with the recipe's algorithms and filters, small; both accuracies are recorded."""
    data = make_imagefolder(tmp_path / "data", classes=("a", "b", "c"), per_class=4, size=48)
    words = [f"train_dataset.path={data}", f"eval_dataset.path={data}", f"runs_folder={tmp_path}/runs", "run_name=it"]
    words += ["train_dataset.batch_size=4", "eval_dataset.batch_size=4", "max_duration=1ba", "scheduler.t_warmup=0ba"]
    words += ["train_dataset.crop_size=48", "algorithms.progressive_resizing.sizes=[32,48]", "loggers={}"]
    words += ["eval_dataset.crop_size=64", "model.num_classes=3", "model.name=resnet18", "device=cpu"]
    words += ["train_dataset.num_workers=0", "eval_dataset.num_workers=0", "save_folder=null"]
    trainer = main(load([str(ROOT / "yamls/resnet50.yaml"), f"recipe_name={recipe}", *words]))
    trainer.close()
    [row] = csv.DictReader((tmp_path / "runs/it/metrics.csv").read_text().splitlines())
    assert row["image_size"] == "32" and float(row["top1_tta"]) >= 0 and row["top5_tta"] == "100.0"
