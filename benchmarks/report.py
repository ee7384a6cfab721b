"""Measure the time and the memory of a report on many runs.

    python -m benchmarks.report
    python -m benchmarks.report --runs 300 --epochs 270

The runs are generated: groups of three seeds, each group with another learning rate. Each report is made by a new
process, whose whole lifetime is measured.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import command
from config import Machine, load
from config.read import ROOT

SEEDS = 3
DATA = {"train_images": 1_281_167, "eval_images": 50_000, "classes": 1000, "names": None}
CHILD = """
import sys
from tools.report.__main__ import run
status = run(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(status)
"""
CLOCKS = ("train_seconds", "eval_seconds", "wait_seconds", "total_seconds")


def leave(folder: Path, number: int, epochs: int) -> None:
    """Write the folder of a generated run; `number` sets its seed, learning rate and accuracy."""
    from training.record import COLUMNS, RunFolder

    rate = 0.5 + (number // SEEDS) / 10
    words = [f"optimizer.lr={rate}", f"seed={number % SEEDS}", f"max_duration={epochs}ep", "scheduler.t_warmup=0ep"]
    run = load([str(ROOT / "yamls/resnet50.yaml"), *words, "dry_run=true"])
    run.config.dry_run, run.prepared = False, Machine("cpu", "fp32", run.config.train_dataset.batch_size)
    record = RunFolder(folder, run)
    record.write_start(DATA)
    for epoch in range(1, epochs + 1):
        top1 = (76 + math.sin(number)) * (1 - math.exp(-5 * epoch / epochs))
        figures = {"epoch": epoch, "step": 625 * epoch, "top1": top1, "top5": 60 + top1 / 2.5, "image_size": 224}
        clocks = {name: epoch * (140 + number / 10) * (1 + index / 10) for index, name in enumerate(CLOCKS)}
        row = dict.fromkeys(COLUMNS, 7 - top1 / 20) | {"lr": rate * (1 - epoch / epochs)} | figures | clocks
        record.rows.append(row)
    last = record.rows.pop()
    record.add_row(last)
    record.write_summary({"run_name": folder.name, "recipe": "baseline", **last, "ended": "finished"})


def measure(folder: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in MiB of one report."""
    words = [sys.executable, "-c", CHILD, str(folder / "runs"), "-o", str(folder / "report.html")]
    started = time.monotonic()
    output = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    seconds = time.monotonic() - started
    # Not getrusage: a child's peak there includes its parent's pages.
    peak = next(line.split()[1] for line in output.splitlines() if line.startswith("VmHWM"))
    return seconds, int(peak) / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Generate the runs, measure the reports, print the result, and return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("runs", 100), ("epochs", 90), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    given = parser.parse_args(argv)
    for name, number in vars(given).items():
        if number < 1:
            parser.error(f"--{name} {number}: must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.runs):
            leave(Path(folder, "runs", f"run-{number:04d}"), number, given.epochs)
        measured = [measure(Path(folder)) for _ in range(given.rounds)]
        size = Path(folder, "report.html").stat().st_size
    print(
        f"{given.runs} runs of {given.epochs} epochs: {statistics.median(s for s, _ in measured):.1f} s (median of "
        f"{given.rounds}), {max(peak for _, peak in measured):.0f} MiB of memory, a page of {size / 2**20:.1f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
