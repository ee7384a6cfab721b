"""Waiting for data: exact with a fake clock, reported once, and the slowest rank's figure on all ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from composer.core import Callback

from loaders import workers
from loaders.storage.imagefolder import ImageFolderDataset
from main import cli
from tests.runs import ROOT, metrics, small_yaml
from training import data_wait

pytestmark = pytest.mark.slow


class Clock:
    """Fake clock that advances only when a test says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Work(Callback):
    """A training step that takes six seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def batch_start(self, state, logger) -> None:
        self.clock.now += 6.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Makes reading an image take a quarter of a second: three seconds per batch of 12."""
    made, contents = Clock(), ImageFolderDataset.contents

    def slow(self: ImageFolderDataset, index: int):
        made.now += 0.25
        return contents(self, index)

    for module in (workers, data_wait):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(ImageFolderDataset, "contents", slow)
    monkeypatch.setattr(data_wait, "WINDOW", 3)
    monkeypatch.setattr(data_wait, "_START_UP", 2)
    return made


@pytest.mark.parametrize("microbatch", [12, 5])
def test_share_and_seconds(
    microbatch: int, clock: Clock, workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """4 batches of 3 s per epoch: a third of each step, also in three microbatches. Evaluation does not count."""
    monkeypatch.setattr("training.build.callbacks", lambda _config: [Work(clock)])
    yaml = small_yaml(workdir, image_folder, max_duration="4ep", device_train_microbatch_size=microbatch)
    assert cli([str(yaml), "run_name=slow", "train_dataset.num_workers=0", "eval_dataset.num_workers=0"]) == 0
    assert [float(row["wait_seconds"]) for row in metrics(workdir / "runs/slow")] == [12.0, 24.0, 36.0, 48.0]
    said = [line for line in capsys.readouterr().out.splitlines() if "waiting for data" in line]
    assert len(said) == 1, "told once"
    assert "waiting for data 33 % of the time" in said[0] and "set train_dataset.num_workers=" in said[0]


def test_nothing_is_printed_below_a_tenth(clock: Clock, workdir: Path, image_folder: Path, capsys, monkeypatch) -> None:
    class Slower(Work):
        def batch_start(self, state, logger) -> None:
            self.clock.now += 30.0

    monkeypatch.setattr("training.build.callbacks", lambda _config: [Slower(clock)])
    yaml = small_yaml(workdir, image_folder)
    assert cli([str(yaml), "run_name=fast", "train_dataset.num_workers=0", "eval_dataset.num_workers=0"]) == 0
    assert "waiting for data" not in capsys.readouterr().out
    assert float(metrics(workdir / "runs/fast")[-1]["wait_seconds"]) == 24.0


def test_advice_names_the_next_setting(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import build_imagenet_dataspec

    loader = build_imagenet_dataspec(image_folder, False, 12, crop_size=16, num_workers=2).dataloader
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert "set train_dataset.num_workers=8" in data_wait.advice(loader, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    advice = data_wait.advice(loader, None)
    assert advice.startswith("2 workers keep all 2 cores of this device busy. ")
    assert "python -m tools.convert --max-size 500" in advice and "storage=dali" not in advice
    on_gpu = build_imagenet_dataspec(image_folder, False, 12, crop_size=16, num_workers=2, device="gpu").dataloader
    assert "storage=dali decodes on the GPU" in data_wait.advice(on_gpu, None)
    loader.dataset.fetches = True
    assert "train_dataset.preload=" in data_wait.advice(loader, None)


RANKS = """
from composer.utils import dist, get_device
dist.initialize_dist(get_device("cpu"), timeout=300)
from training.data_wait import DataWait
class Loader: waited = 0.0
wait = DataWait(Loader())
Loader.waited = 2.5 if dist.get_global_rank() else 0.5
print(f"seconds {wait.state_dict()['seconds']}", end=chr(10), flush=True)
"""


def test_the_slowest_rank_counts(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.count("seconds 2.5") == 2, done.stdout + done.stderr
