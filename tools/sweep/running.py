"""Run the runs of a sweep one after another through the composer launcher, or print the commands that would."""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from common.orphans import die_with_parent
from config import ConfigError, UserError, load
from config.read import main_script
from launch.slurm.job import script, shape
from tools.sweep.plan import Plan, Planned
from training import earlier_run
from training.earlier_run import differences, plain

LAST_LINES = 6  # of a failed run's output to show
POLL = 0.2  # seconds between two looks at a run
EMITTED = ("commands", "shell", "slurm")


class Stopped(KeyboardInterrupt):
    """The sweep was interrupted, and its current run has saved."""


def composer(plan: Plan, run: Planned) -> list[str]:
    """Return the command of a run."""
    return ["composer", "-n", str(plan.processes), main_script(), *run.words]


def emit(kind: str, plan: Plan, made_by: str) -> str:
    """Return the sweep as one of EMITTED: a command per line, a shell script, or a SLURM array with a task per run."""
    commands = [shlex.join(composer(plan, run)) for run in plan.runs]
    if kind == "commands":
        return "\n".join([*commands, ""])
    if kind == "shell":  # a run that fails does not stop the others
        lines = ["#!/usr/bin/env bash", f"# Made by: {made_by}", "failed=0", "trap 'exit 130' INT"]
        return "\n".join([*lines, *(f"{command} || failed=$?" for command in commands), 'exit "$failed"', ""])
    job = shape(plan.slurm)
    if not job.problems() and job.world_size != plan.processes:
        raise ConfigError(
            f"processes: {plan.processes} given, but a job of this shape has {job.world_size}; set processes: "
            f"{job.world_size}, or another preset under slurm"
        )
    runs = [[main_script(), *run.words] for run in plan.runs]
    return script(job, plan.folder.name, runs, str(Path.cwd()), str(Path(sys.executable).parent), made_by)


def is_finished(plan: Plan, run: Planned) -> bool:
    """Whether a run is complete; ConfigError if its folder holds a run with another configuration."""
    folder = plan.folder / run.name
    if not (folder / "config.yaml").is_file():
        return False
    recorded, wanted = earlier_run.configuration(folder), load(list(run.words))
    wanted.config.precision = wanted.config.precision or recorded.get("precision")  # which the device chose
    if changed := differences(recorded, plain(wanted)):
        raise ConfigError(
            f"{folder} holds a run with another configuration ({'; '.join(changed)}); "
            "give the sweep another runs_folder, or move that folder away"
        )
    return earlier_run.summary(folder).get("ended") == "finished"


def last_lines(folder: Path) -> list[str]:
    """Return the end of a run's output."""
    with contextlib.suppress(OSError):
        return [line for line in output(folder).read_text(errors="replace").splitlines() if line.strip()][-LAST_LINES:]
    return []


def output(folder: Path) -> Path:
    """Return the file that holds a run's output, next to those of its ranks."""
    return folder / "logs" / "output.log"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder, so that no other sweep runs in it; UserError if one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".sweep.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another sweep is at work there; wait for it, or stop it with Ctrl-C") from None
        yield


def execute(plan: Plan, run: Planned, look: Callable[[], None]) -> int:
    """Run a run to its end, call `look` a few times a second, and return the exit status; Stopped after a signal."""
    log = output(plan.folder / run.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = composer(plan, run)
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        command[0] = str(Path(sys.executable).parent / "composer")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # so that a stop reaches launcher and ranks once, no matter who sent it
            preexec_fn=partial(die_with_parent, signal.SIGTERM),  # or the next sweep would meet its run
        )
    with _forward_signals(process) as stops:
        while process.poll() is None:
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    if stops:
        raise Stopped
    return process.returncode


@contextlib.contextmanager
def _forward_signals(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Send SIGINT and SIGTERM on to a run's process group; yield the list of those received."""
    received: list[int] = []

    def forward(signum: int, _frame: object) -> None:
        received.append(signum)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
