"""Run recipes x lengths x seeds, one run after another.

    python -m tools.sweep yamls/sweeps/digits.yaml
    python -m tools.sweep yamls/sweeps/digits.yaml max_duration=2ep runs_folder=runs/short   # arguments for every run
    python -m tools.sweep yamls/sweeps/imagenet.yaml --emit slurm > sweep.sh                 # and: sbatch sweep.sh

All configurations are checked before the first run starts. After Ctrl-C or a crash, repeat the command to continue:
finished runs are kept, an interrupted one resumes from its checkpoint. A run that fails does not stop the others.
"""

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from common import command, terminal
from common.errors import UserError
from tools.sweep.plan import Plan, Planned, read
from tools.sweep.running import EMITTED, Stopped, alone, emit, execute, is_finished, last_lines, output
from training import earlier_run
from training.earlier_run import ACCURACIES

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"


@dataclass
class Line:
    """A run and its progress."""

    run: Planned
    folder: Path
    state: str
    began: float = 0.0  # when this program started it

    @property
    def latest(self) -> dict[str, str]:
        """The last row of metrics.csv; empty before the first evaluation."""
        with contextlib.suppress(UserError):
            return (earlier_run.rows(self.folder) or [{}])[-1]
        return {}

    def cells(self) -> list[str]:
        """Return the run's row of the table."""
        run, row = self.run, self.latest
        seconds = time.monotonic() - self.began
        if self.state != RUNNING:
            seconds = earlier_run.summary(self.folder).get("total_seconds", 0.0)
        figures = [f"{float(row[key]):.2f}" if row.get(key) else "" for key in ACCURACIES]
        times = [terminal.clock(time) if time else "" for time in (float(row.get("train_seconds") or 0.0), seconds)]
        return [run.recipe, f"{run.ratio:g}", str(run.seed), self.state, row.get("epoch", ""), *figures, *times]


def main(argv: Sequence[str]) -> int:
    """Run the sweep, or print it; return 1 if a run failed."""
    parser = command.parser("tools.sweep", __doc__)
    parser.add_argument("sweep", help="a sweep's YAML, as yamls/sweeps/digits.yaml, which explains the keys")
    parser.add_argument("words", nargs="*", metavar="ARG", help="key=value for every run; overrides those of the YAML")
    parser.add_argument("--emit", choices=EMITTED, help="print the commands instead of running them")
    given = parser.parse_intermixed_args(argv)
    plan = read(given.sweep, given.words, elsewhere=given.emit is not None)
    if given.emit:
        print(emit(given.emit, plan, shlex.join(["python", "-m", "tools.sweep", *argv])), end="")
        return 0
    with alone(plan.folder):
        return run_all(plan, terminal.console())


def run_all(plan: Plan, console: Console) -> int:
    """Run the unfinished runs; return 0 if every run finished."""
    lines = [Line(run, plan.folder / run.name, FINISHED if is_finished(plan, run) else WAITING) for run in plan.runs]
    done = sum(line.state == FINISHED for line in lines)
    console.print(f"{len(lines)} runs in {plan.folder}" + (f", {done} of them finished already" if done else ""))
    try:
        # Drawn between two looks, without a thread: a program with threads should not fork.
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for at, line in enumerate(lines):
                if line.state == WAITING:
                    run_one(plan, lines, at, live)
    finally:
        console.print(table(lines))
    return report(plan, [line for line in lines if line.state != FINISHED], console)


def run_one(plan: Plan, lines: list[Line], at: int, live: Live) -> None:
    """Run one of the lines and record in its state how that ended."""
    line, console = lines[at], live.console

    def look() -> None:
        if console.is_terminal:
            most = max(1, console.height - 6)  # rows that fit the screen
            first = max(0, min(at - most // 2, len(lines) - most))
            live.update(table(lines[first : first + most]), refresh=True)

    line.state, line.began = RUNNING, time.monotonic()
    try:
        status = execute(plan, line.run, look)
    except Stopped:
        line.state = "stopped"
        raise
    finished = status == 0 and earlier_run.summary(line.folder).get("ended") == FINISHED
    line.state = FINISHED if finished else f"failed ({status})"
    if not console.is_terminal:
        top1 = line.latest.get("top1")
        console.print(f"{line.run.name}: {line.state}" + (f", top-1 {float(top1):.2f} %" if top1 else ""))


def report(plan: Plan, failed: list[Line], console: Console) -> int:
    """Print what failed, with its last lines, and the next command; return the exit status."""
    for line in failed:
        console.print(f"\n{line.run.name}: {line.state}; its whole output is in {output(line.folder)}")
        for text in last_lines(line.folder):
            console.print(f"  {text}")
    if failed:
        console.print(f"\n{len(failed)} of {len(plan.runs)} runs failed; repeat the command to try them again")
        return 1
    console.print(f"Compare them: python -m tools.report {shlex.quote(str(plan.folder))}")
    return 0


def table(lines: list[Line]) -> Table:
    """Return the runs and their figures so far, in 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    accuracies = [f"{title} %" for title in ACCURACIES.values()]
    for name in ("recipe", "length", "seed", "state", "epoch", *accuracies, "trained", "total"):
        table.add_column(name, justify="left" if name in ("recipe", "state") else "right", no_wrap=True)
    for line in lines:
        style = "bold" if line.state == RUNNING else "red" if line.state.startswith("failed") else None
        table.add_row(*line.cells(), style=style)
    return table


if __name__ == "__main__":
    sys.exit(command.run(main, stopped="stopped; repeat the command to continue"))
