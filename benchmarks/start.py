"""Time a command to its first training step, and a dry run.

    python -m benchmarks.start [--rounds 5]

The first step ends at the time stamp of the first checkpoint (save_interval=1ba), so writing it is included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from common.terminal import console

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DIGITS = ["main.py", "yamls/digits.yaml"]


def first_step(launcher: list[str]) -> float:
    """Return the seconds until the first training step of yamls/digits.yaml is done and saved."""
    with tempfile.TemporaryDirectory() as runs:
        words = [f"runs_folder={runs}", f"save_folder={runs}/saved", "save_interval=1ba"]
        words += ["max_duration=1ba", "scheduler.t_warmup=0ba"]
        started = time.time()
        subprocess.run([*launcher, *DIGITS, *words], cwd=ROOT, check=True, capture_output=True)
        return Path(runs, "saved/ep0-ba1-rank0.pt").stat().st_mtime - started


def whole(*command: str) -> float:
    """Return the seconds that a command takes."""
    started = time.time()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=False, capture_output=True)
    return time.time() - started


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each command (default: %(default)s)")
    rounds = parser.parse_args().rounds
    measures = {
        "composer main.py yamls/digits.yaml: first step": lambda: first_step([str(BIN / "composer")]),
        "python main.py yamls/digits.yaml: first step": lambda: first_step([sys.executable]),
        "python main.py yamls/resnet50.yaml dry_run=true": lambda: whole(
            "main.py", "yamls/resnet50.yaml", "dry_run=true"
        ),
        "python main.py yamls/resnet50.yaml optimizer.momentun=1 (a mistake)": lambda: whole(
            "main.py", "yamls/resnet50.yaml", "optimizer.momentun=1"
        ),
    }
    table = Table("what", "median s", "min-max s", title=f"from command to result, {rounds} runs each, in turn")
    for measure in measures.values():
        measure()  # warms the page cache, and writes the digits
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    for name, values in seconds.items():
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}")
    console().print(table)


if __name__ == "__main__":
    main()
