"""The progress and summary that a run prints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from main import cli
from tests.runs import small_yaml
from training.progress import print_summary
from training.recorder import _peak_gpu_mib

pytestmark = pytest.mark.slow


def test_epochs_of_a_run_in_batches(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    """Six batches, four per epoch: two epochs, the second incomplete."""
    yaml = small_yaml(workdir, image_folder, max_duration="6ba", save_folder=None)
    assert cli([str(yaml)]) == 0
    said = capfd.readouterr().out
    assert "epoch   1/2  loss " in said and "epoch   2/2  loss " in said
    assert "  val loss " in said and "BCE" not in said
    (written,) = workdir.glob("runs/*/summary.json")
    if not torch.cuda.is_available():
        assert json.loads(written.read_text())["peak_gpu_mib"] is None and "peak GPU memory" not in said


def test_peak_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    assert _peak_gpu_mib("gpu") == 3072 and _peak_gpu_mib("cpu") is None


def test_losses_have_their_own_names(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    """With three classes there is no top-5."""
    yaml = small_yaml(
        workdir, image_folder, max_duration="2ba", save_folder=None, model__loss_name="binary_cross_entropy"
    )
    assert cli([str(yaml)]) == 0
    said = capfd.readouterr().out
    assert "epoch   1/1  BCE " in said and "  val CE " in said
    assert "val loss" not in said and "top-1" in said and "top-5" not in said


@pytest.mark.parametrize(("loss", "label"), [("cross_entropy", "val loss"), ("binary_cross_entropy", "val CE")])
@pytest.mark.parametrize("classes", [5, 6])
def test_the_summary_table(loss: str, label: str, classes: int) -> None:
    """The command below the table is one line at any terminal width."""
    figures = ("top1", "top5", "best_top1", "val_loss", "train_seconds", "eval_seconds", "total_seconds")
    summary: dict[str, Any] = dict.fromkeys((*figures, "samples_per_second"), 1.0)
    summary |= {"peak_gpu_mib": 1536.0 if classes > 5 else None}
    summary |= {"run_name": "it", "ended": "finished", "command": "python main.py " + "key=value " * 20 + "end"}
    out = io.StringIO()
    print_summary(Console(file=out, width=60), summary, SimpleNamespace(loss_name=loss, classes=classes), "runs/it")
    *table, command = out.getvalue().splitlines()
    assert command == f"repeat it with: {summary['command']}"
    rows = [cells[1].strip() for line in table if len(cells := line.split("│")) > 2]
    assert label in rows and ("top-5" in rows) == (classes > 5)
    assert ("peak GPU memory" in rows) == (classes > 5) and ("1.50 GiB" in out.getvalue()) == (classes > 5)
