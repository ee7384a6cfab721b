"""Run folders for the tests of programs that read them, written by the trainer's own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Machine, durations_of, load
from training.record import COLUMNS, RunFolder

ROOT = Path(__file__).parent.parent.parent
IMAGENET = {"train_images": 1_281_167, "eval_images": 50_000, "classes": 1000, "names": "0123456789ab"}
DIGITS = {"train_images": 1438, "eval_images": 359, "classes": 10, "names": "ba9876543210"}
A100 = {"device": "NVIDIA A100-SXM4-40GB", "world_size": 8, "nodes": 1}
A10G = {"device": "NVIDIA A10G", "world_size": 1, "nodes": 1}


def leave_run(
    folder: Path,
    *words: str,
    top1: float | Sequence[float] = 76.0,
    top5: float = 93.0,
    epoch_seconds: float = 100.0,
    ended: str | None = "finished",
    epochs: int | None = None,
    data: dict[str, Any] | None = IMAGENET,
    machine: dict[str, Any] = A100,
    yaml: str = "resnet50",
) -> Path:
    """Write a run with one evaluation per epoch; top-1 rises to `top1` in equal steps, or follows a given sequence.

    Args:
        folder: runs/NAME.
        words: key=value, as on the command line.
        top1, top5: final values, in percent.
        epoch_seconds: of training; evaluation takes a tenth of it, the whole epoch a fifth more.
        ended: `ended` in summary.json; None writes no summary.
        epochs: how many it completed; None for all.
        data: `data` in environment.json; None as in old records.
        machine: device entries of environment.json.
        yaml: name of a file in yamls/.
    """
    if any(word.startswith("max_duration") for word in words):
        words = ("scheduler.t_warmup=1ep", *words)  # the published 8 epochs may exceed the run
    run = load([str(ROOT / f"yamls/{yaml}.yaml"), *words, "dry_run=true"])
    run.argv = [f"yamls/{yaml}.yaml", *words]
    run.config.dry_run, run.prepared = False, Machine("cpu", "fp32", run.config.train_dataset.batch_size)
    record = RunFolder(folder, run)
    record.write_start(data)
    environment = folder / "environment.json"
    environment.write_text(json.dumps(json.loads(environment.read_text()) | machine | {"commit": "c0ffee"}))
    length = epochs or int(durations_of(run.config)[0].value)
    curve = list(top1) if isinstance(top1, Sequence) else [top1 * (n + 1) / length for n in range(length)]
    for epoch, accuracy in enumerate(curve, 1):
        record.rows.append(_row(run.config, epoch, accuracy, top5 * accuracy / curve[-1], epoch_seconds))
    if record.rows:
        record.add_row(record.rows.pop())
    if ended:
        last = {key: float(value) for key, value in record.rows[-1].items()} if record.rows else {}
        record.write_summary({"run_name": folder.name, "recipe": run.recipe_name, **last} | {"ended": ended})
    return folder


def _row(config: Any, epoch: int, top1: float, top5: float, seconds: float) -> dict[str, Any]:
    """Return a row of metrics.csv."""
    return dict.fromkeys(COLUMNS, 0.0) | {
        **{"epoch": epoch, "step": 625 * epoch, "image_size": 176, "lr": config.optimizer["lr"] * (1 - epoch / 100)},
        **{"train_loss": 7 - top1 / 20, "val_loss": 6 - top1 / 20, "top1": top1, "top5": top5},
        **{"train_seconds": epoch * seconds, "eval_seconds": epoch * seconds / 10},
        **{"wait_seconds": epoch * seconds / 50, "total_seconds": epoch * seconds * 1.2},
        "samples_per_second": 1_281_167 / seconds,
    }
