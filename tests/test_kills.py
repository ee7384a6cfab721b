"""A run killed at any point is completed by the same command, to the same files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.folders import S3Folder
from main import cli
from tests.runs import small_yaml
from tests.s3 import s3_client

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_channels")]

# Evaluations with the last checkpoint, after it (an epoch is 4 batches), and with EMA weights.
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
CLOCKS = re.compile(r"_seconds$|samples_per_second|^peak_gpu_mib$|^command$|^run_name$")


def figures_of(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return a run's rows of metrics.csv and its summary, without clocks."""
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not CLOCKS.search(k)} for row in csv.DictReader(file)]
    return rows, {k: v for k, v in summary.items() if not CLOCKS.search(k)}


def left(folder: Path) -> dict[str, Any]:
    """Return what a run leaves, without clocks: file names, figures, the target of latest, the best weights."""
    rows, summary = figures_of(folder)
    best = torch.load(folder / "checkpoints/best-rank0.pt", weights_only=False)["state"]
    return {
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "summary": summary,
        "rows": rows,
        "latest": (folder / "checkpoints/latest-rank0.pt").resolve().name,
        "best": (best["timestamp"]["Timestamp"]["batch"], [float(t.double().sum()) for t in best["model"].values()]),
    }


def written_at(folder: Path) -> dict[Path, int]:
    """Return the modification time of each file."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class Snapshots:
    """Copies of runs/run as a kill before each change to it would leave it.

    Args:
        folder: parent of runs/.
        early: also keep the copies from before the last checkpoint.
    """

    def __init__(self, folder: Path, early: bool = False) -> None:
        self.folder, self.early, self.taken, self.on = folder, early, [], True
        self._states: list[tuple] = []
        sys.addaudithook(self._before)

    def _before(self, event: str, arguments: tuple) -> None:
        if not self.on or event not in CHANGES or "runs/run" not in str(arguments[0]):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        self.on = False
        if not self.early and event == "os.rename" and re.search(r"/ep\d+-ba\d+-rank0.pt$", str(arguments[1])):
            self.taken, self._states, self.on = [], [], True
            return
        run = self.folder / "runs/run"
        state = tuple(sorted((str(path), path.lstat().st_ino, path.lstat().st_size) for path in run.rglob("*")))
        if run.exists() and state not in self._states:
            self._states.append(state)
            copy = self.folder / f"copy{len(list(self.folder.glob('copy*')))}"
            self.taken.append((f"{event} {arguments[:2]}", shutil.copytree(run, copy, symlinks=True)))
        self.on = True


def command(folder: Path, image_folder: Path, name: str) -> list[str]:
    """Return the words of a run that saves after every batch and keeps the newest checkpoint."""
    yaml = small_yaml(folder, image_folder, train_dataset__num_workers=0, eval_dataset__num_workers=0)
    words = [str(yaml), "train_dataset.crop_size=16", "eval_dataset.resize_size=20", "save_interval=1ba"]
    return [*words, "save_num_checkpoints_to_keep=1", "autoresume=true", "seed=3", "run_name=run", *RUNS[name]]


@pytest.mark.parametrize("name", RUNS)
def test_killed_before_any_change_after_the_last_checkpoint(name: str, workdir: Path, image_folder: Path) -> None:
    words = command(workdir, image_folder, name)
    snapshots = Snapshots(workdir)
    assert cli(words) == 0
    snapshots.on = False
    run = workdir / "runs/run"
    whole = left(run)
    assert len(snapshots.taken) > 3
    written = written_at(run)
    assert cli(words) == 0
    assert written_at(run) == written, "a finished run was changed"
    for change, copy in snapshots.taken:
        shutil.rmtree(run)
        copy.rename(run)
        assert cli(words) == 0, change
        assert left(run) == whole, f"killed before {change}"


@pytest.mark.parametrize("name", ["baseline in batches", "mild", "ended by a callback"])
def test_killed_at_any_time(name: str, workdir: Path, image_folder: Path) -> None:
    """Before every fifth change of the whole run, also with the state of EMA and of early stopping."""
    words = command(workdir, image_folder, name)
    snapshots = Snapshots(workdir, early=True)
    assert cli(words) == 0
    snapshots.on = False
    run = workdir / "runs/run"
    whole = left(run)
    points = snapshots.taken[2::5]
    assert len(points) > 4
    for change, copy in points:
        shutil.rmtree(run)
        copy.rename(run)
        assert cli(words) == 0, change
        assert left(run) == whole, f"killed before {change}"


class Bucket:
    """Copies of a bucket and of runs/ as a kill before each request to S3 would leave them."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.folder, self.on = name, folder, True
        self.taken: list[tuple[str, dict[str, bytes], Path]] = []
        self.client = s3_client()
        self.client.create_bucket(Bucket=name)
        stock = S3Folder._call

        def call(folder: S3Folder, operation: str, name: str, **arguments: Any) -> dict:
            if self.on and re.search(r"upload|copy|delete", operation):
                copy = self.folder / f"s3copy{len(self.taken)}"
                shutil.copytree(self.folder / "runs", copy, symlinks=True)
                self.taken.append((f"{operation} {name}", self.objects(), copy))
            return stock(folder, operation, name, **arguments)

        monkeypatch.setattr(S3Folder, "_call", call)

    def objects(self) -> dict[str, bytes]:
        """Return the bucket's contents."""
        keys = [item["Key"] for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]
        return {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def restore(self, objects: dict[str, bytes], runs: Path) -> None:
        """Restore the bucket and the folder."""
        for key in self.objects():
            self.client.delete_object(Bucket=self.name, Key=key)
        for key, body in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=body)
        shutil.rmtree(self.folder / "runs")
        runs.rename(self.folder / "runs")


def test_killed_with_checkpoints_in_s3(
    workdir: Path, image_folder: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*command(workdir, image_folder, "baseline"), "max_duration=2ba", "scheduler.t_warmup=0ba"]
    words += ["save_folder=s3://kept/{run_name}"]
    (workdir / "runs").mkdir()
    bucket = Bucket("kept", workdir, monkeypatch)
    assert cli(words) == 0
    bucket.on = False
    whole = in_bucket(bucket, workdir)
    points = [point for point in bucket.taken if ".writable" not in point[0]]
    assert len(points) >= 4
    for change, objects, runs in points:
        bucket.restore(objects, runs)
        assert cli(words) == 0, change
        assert in_bucket(bucket, workdir) == whole, f"killed before {change}"


def in_bucket(bucket: Bucket, folder: Path) -> Any:
    """Return what a run leaves in the bucket and locally, without clocks."""
    objects = bucket.objects()
    loaded = {key: torch.load(io.BytesIO(body), weights_only=False)["state"] for key, body in objects.items()}
    sums = {key: [float(t.double().sum()) for t in state["model"].values()] for key, state in loaded.items()}
    rows, figures = figures_of(folder / "runs/run")
    return sums, rows, figures
