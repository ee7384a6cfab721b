"""Running a sweep's runs one after another, through the composer launcher, each with its output in a file."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common.orphans import die_with_parent
from config import ConfigError, UserError
from config.read import main_script
from tools.sweep.plan import Plan, Planned, loaded
from training import earlier_run
from training.identity import differences, plain

LAST_LINES = 6  # of a failed run's output that are shown
POLL = 0.2  # seconds between two looks at a run


class Stopped(KeyboardInterrupt):
    """The sweep was asked to stop, and its run has saved."""


def composer(plan: Plan, run: Planned) -> list[str]:
    """The command of a run."""
    return ["composer", "-n", str(plan.processes), main_script(), *run.words]


def summary(folder: Path) -> dict[str, Any]:
    """A run's summary.json; empty if it has not ended yet."""
    return earlier_run.mapping(folder / "summary.json")


def is_finished(plan: Plan, run: Planned) -> bool:
    """Whether a run is complete.

    Raises:
        ConfigError: if its folder holds a run with another configuration.
    """
    folder = plan.folder / run.name
    if not (folder / "config.yaml").is_file():
        return False
    there, wanted = earlier_run.configuration(folder), loaded(run)
    wanted.config.precision = wanted.config.precision or there.get("precision")  # which the device chose
    if changed := differences(there, plain(wanted)):
        raise ConfigError(
            f"{folder} holds a run with another configuration ({'; '.join(changed)}); "
            "give the sweep another runs_folder, or move that folder away"
        )
    return summary(folder).get("ended") == "finished"


def latest(folder: Path) -> dict[str, str]:
    """The last row of a run's metrics.csv; empty before its first evaluation."""
    with contextlib.suppress(OSError, csv.Error), (folder / "metrics.csv").open(newline="") as file:
        return dict((list(csv.DictReader(file)) or [{}])[-1])
    return {}


def last_lines(folder: Path) -> list[str]:
    """The end of what a run printed."""
    with contextlib.suppress(OSError):
        return [line for line in output(folder).read_text(errors="replace").splitlines() if line.strip()][-LAST_LINES:]
    return []


def output(folder: Path) -> Path:
    """The file with what a run printed, beside those of its ranks."""
    return folder / "logs" / "output.log"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other sweep works in this folder meanwhile.

    Raises:
        UserError: if one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".sweep.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another sweep is at work there; wait for it, or stop it with Ctrl-C") from None
        yield


def execute(plan: Plan, run: Planned, look: Callable[[], None]) -> int:
    """Run a run to its end; its exit status.

    Args:
        plan: the sweep.
        run: one of its runs.
        look: called a few times a second.

    Raises:
        Stopped: after Ctrl-C or SIGTERM, when the run has saved and ended.
    """
    log = output(plan.folder / run.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).parent / "composer"), *composer(plan, run)[1:]]
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(composer(plan, run))}\n".encode())
        file.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # so that a stop reaches launcher and ranks once, whoever sent it
            preexec_fn=partial(die_with_parent, signal.SIGTERM),  # or the next sweep would meet its run
        )
    stop = _Stop(process)
    with stop:
        while process.poll() is None:
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    if stop.asked:
        raise Stopped
    return process.returncode


class _Stop:
    """Hands SIGINT and SIGTERM on to a run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.asked = False
        self._process = process
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._hand_on)

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _hand_on(self, signum: int, _frame: object) -> None:
        self.asked = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signum)
