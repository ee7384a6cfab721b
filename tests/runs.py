"""Small runs for the tests, in this process or through the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent
COMPOSER = str(Path(sys.executable).parent / "composer")
TORCHRUN = str(Path(sys.executable).parent / "torchrun")


def small_yaml(folder: Path, image_folder: Path, **changes: Any) -> Path:
    """Write the YAML of a ResNet-18 run at 16 px with three classes: 2 epochs of 4 batches of 12, seconds on a CPU.

    In the name of a change, a double underscore stands for a dot.
    """
    config: dict[str, Any] = {
        "model": {"name": "resnet18", "num_classes": 3},
        "train_dataset": {"path": str(image_folder), "crop_size": 16, "batch_size": 12, "num_workers": 1},
        "eval_dataset": {
            "path": str(image_folder),
            "resize_size": 20,
            "crop_size": 16,
            "batch_size": 12,
            "num_workers": 1,
        },
        "optimizer": {"lr": 0.05, "momentum": 0.875, "weight_decay": 5.0e-4},
        "scheduler": {"t_warmup": "1ba"},
        "max_duration": "2ep",
        "loggers": {},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch see a GPU; whatever uses it fails."""

    def used() -> None:
        raise AssertionError("the GPU is used")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", used)


def run_main(
    *words: object, cwd: Path, launcher: tuple[str, ...] = (sys.executable,), timeout: float = 240, **env: str
):
    """Run main.py to its end as a user would; return a CompletedProcess with text."""
    process = start_main(*words, cwd=cwd, launcher=launcher, **env)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def bare_shell(**env: str) -> dict[str, str]:
    """Return the environment of a bare shell plus the S3 settings, without what tests/conftest.py sets."""
    store = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "S3_"))}
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "COLUMNS": "120", **store, **env}


started: list[subprocess.Popen] = []
"""Processes of `start_main`, which tests/conftest.py kills after each test."""


def start_main(
    *words: object, cwd: Path, launcher: tuple[str, ...] = (sys.executable,), **env: str
) -> subprocess.Popen:
    """Start main.py in a bare shell, or the script or module that ends the launcher's words.

    It leads its own process group, like a job of a terminal or a scheduler.
    """
    script = [] if launcher[-1].endswith(".py") or "-m" in launcher else [str(ROOT / "main.py")]
    process = subprocess.Popen(
        [*launcher, *script, *map(str, words)],
        cwd=cwd,
        env=bare_shell(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def wait_for(condition, seconds: float = 120, process: subprocess.Popen | None = None) -> Any:
    """Poll until condition() is true and return its value; fail if the process exits first or time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} too early:\n{''.join(process.communicate())}")
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the model's tensors in a checkpoint."""
    return torch.load(checkpoint, weights_only=False, map_location="cpu")["state"]["model"]


def assert_same_weights(one: Path, other: Path) -> None:
    """Check that two checkpoints hold bitwise identical models."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} tensors differ: {different[:5]}"


def metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's metrics.csv."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary(run: Path) -> dict[str, Any]:
    """Return a run's summary.json."""
    return json.loads((run / "summary.json").read_text())
