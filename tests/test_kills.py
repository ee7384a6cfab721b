"""A run that is killed anywhere after its last checkpoint is completed by the same command, to the same files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.resnet import BasicBlock, ResNet

from main import cli
from tests.runs import small_yaml

# Evaluated with the last checkpoint, after it (an epoch is 4 batches), and with weights beside the trained ones.
RUNS = {
    "baseline": ["max_duration=1ep", "eval_interval=1ba"],
    "baseline in batches": ["max_duration=3ba"],
    "mild": [
        "recipe_name=mild",
        "max_duration=3ba",
        "eval_interval=2ba",
        "algorithms.ema.half_life=2ba",
        "algorithms.ema.update_interval=1ba",
    ],
    "ended by a callback": [
        "max_duration=6ba",
        "eval_interval=1ba",
        "callbacks.early_stopper.monitor=MulticlassAccuracy",
        "callbacks.early_stopper.dataloader_label=eval",
        "callbacks.early_stopper.patience=1ba",
        "optimizer.lr=0",
    ],
}
CHANGES = {"open", "os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir"}
CLOCKS = re.compile(r"_seconds$|samples_per_second|^command$|^run_name$")


def left(folder: Path) -> dict[str, Any]:
    """What a run has left, without clocks: names of files, figures, where latest points, the best weights."""
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not CLOCKS.search(k)} for row in csv.DictReader(file)]
    best = torch.load(folder / "checkpoints/best-rank0.pt", weights_only=False)["state"]
    return {
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "summary": {k: v for k, v in summary.items() if not CLOCKS.search(k)},
        "rows": rows,
        "latest": (folder / "checkpoints/latest-rank0.pt").resolve().name,
        "best": (best["timestamp"]["Timestamp"]["batch"], [float(t.double().sum()) for t in best["model"].values()]),
    }


def written_at(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class Snapshots:
    """Copies of runs/run as a kill before each change to it would leave it, once the last checkpoint is there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken, self.on = folder, [], True
        self._states: list[tuple] = []
        sys.addaudithook(self._before)

    def _before(self, event: str, arguments: tuple) -> None:
        if not self.on or event not in CHANGES or "runs/run" not in str(arguments[0]):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        self.on = False
        if event == "os.rename" and re.search(r"/ep\d+-ba\d+-rank0.pt$", str(arguments[1])):
            self.taken, self._states, self.on = [], [], True
            return
        run = self.folder / "runs/run"
        state = tuple(sorted((str(path), path.lstat().st_ino, path.lstat().st_size) for path in run.rglob("*")))
        if run.exists() and state not in self._states:
            self._states.append(state)
            copy = self.folder / f"copy{len(list(self.folder.glob('copy*')))}"
            self.taken.append((f"{event} {arguments[:2]}", shutil.copytree(run, copy, symlinks=True)))
        self.on = True


@pytest.mark.parametrize("name", RUNS)
def test_killed_before_any_change_after_the_last_checkpoint(name: str, workdir: Path, pictures: Path) -> None:
    yaml = small_yaml(workdir, pictures, train_dataset__num_workers=0, eval_dataset__num_workers=0)
    words = [str(yaml), "train_dataset.crop_size=16", "eval_dataset.resize_size=20", "save_interval=1ba"]
    words += ["save_num_checkpoints_to_keep=1", "autoresume=true", "seed=3", "run_name=run", *RUNS[name]]
    snapshots = Snapshots(workdir)
    assert cli(words) == 0
    snapshots.on = False
    run = workdir / "runs/run"
    whole = left(run)
    assert len(snapshots.taken) > 3
    written = written_at(run)
    assert cli(words) == 0
    assert written_at(run) == written, "nothing is left to do"
    for change, copy in snapshots.taken:
        shutil.rmtree(run)
        copy.rename(run)
        assert cli(words) == 0, change
        assert left(run) == whole, f"killed before {change}"


@pytest.fixture(autouse=True)
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet-18 with an eighth of its channels: the files are what counts here."""

    class Small(ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // 8, *args, **kwargs)

    def resnet18(num_classes: int = 1000, **kwargs: Any) -> ResNet:
        model = Small(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, **kwargs)
        model.fc = torch.nn.Linear(64, num_classes)
        return model

    monkeypatch.setattr("torchvision.models.resnet18", resnet18)
