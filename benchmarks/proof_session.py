"""The processes of benchmarks.gpu_proof: each starts in time, ends in time, and leaves its output in a log."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import named
from common.orphans import die_with_parent
from config.read import ROOT

WARNING = re.compile(r"warning|stride|deprecat|graph break|not been destroyed", re.IGNORECASE)


class OutOfTime(Exception):
    """The proof's time ended before a process did."""


@dataclass(frozen=True)
class Check:
    """One thing that a stage looked at: whether it is right, and a phrase about it."""

    ok: bool
    said: str
    run: dict[str, Any] | None = None  # measured: a RUN of tools/records/measured.py


@dataclass(frozen=True)
class Ended:
    """A process that ended; `status` is None if it had to be killed because it took too long."""

    status: int | None
    text: str
    seconds: float

    @property
    def fault(self) -> str:
        """How it failed, with its last words; empty if it did not."""
        if self.status == 0:
            return ""
        how = f"killed after {self.seconds:.0f} s" if self.status is None else f"exit status {self.status}"
        return f"{how}: {' '.join(self.text.split())[-240:]}"

    def json(self) -> dict[str, Any]:
        """Return the object that it printed on its last line but warnings."""
        return json.loads(next(line for line in reversed(self.text.splitlines()) if line.startswith("{")))

    @property
    def warned(self) -> str:
        """The distinct warnings in its output, for the end of a phrase."""
        ours = "warning: "  # about a run that is this short
        said = [line for line in self.text.splitlines() if WARNING.search(line) and not line.startswith(ours)]
        lines = {" ".join(line.split())[:120] for line in said}
        return f" (warned: {named(sorted(lines), 2)})" if lines else ""


class Session:
    """Start processes until a time, in a folder for their runs.

    Args:
        folder: temporary.
        until: in time.monotonic(); no process lives longer.
    """

    def __init__(self, folder: Path, until: float) -> None:
        self.folder, self.until = folder, until
        self.log = folder / "log"
        self.machine: dict[str, Any] = {}
        self._children: list[Child] = []

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    @property
    def has_gpu(self) -> bool:
        """Whether torch sees a GPU."""
        return bool(self.machine.get("gpu"))

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.folder / "runs"

    def start(self, *words: str, **env: str) -> Child:
        """Start Python with these words in the root of the checkout."""
        self._children.append(Child(self, words, env))
        return self._children[-1]

    def kill(self) -> None:
        """Kill what is still running."""
        while self._children:
            self._children.pop().kill()

    def python(self, *words: str, limit: float = 120, **env: str) -> Ended:
        """Run Python with these words for at most `limit` seconds."""
        return self.start(*words, **env).wait(limit)

    def call(self, function: str, *words: str, limit: float = 120) -> Ended:
        """Run a function, such as `proof_stages.ops`, in a process of its own."""
        code = f"from benchmarks import {function.partition('.')[0]}; {function}()"
        return self.python("-W", "always", "-c", code, *words, limit=limit)

    def train(self, name: str, *words: str, limit: float = 120, **env: str) -> Ended:
        """Run main.py with these words; `name` is its run's."""
        return self.python(*self.main(name, *words), limit=limit, **env)

    def main(self, name: str, *words: str) -> list[str]:
        """Return main.py's command line."""
        return ["main.py", *words, f"run_name={name}", f"runs_folder={self.runs}"]

    def rows(self, name: str) -> list[dict[str, float]]:
        """Return the rows of a run's metrics.csv, without empty cells."""
        with (self.runs / name / "metrics.csv").open(newline="") as file:
            return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]

    def checkpoints(self, name: str) -> list[Path]:
        """Return a run's checkpoints by their batch."""
        found = (self.runs / name / "checkpoints").glob("ep*-ba*-rank0.pt")
        return sorted(found, key=batch_of)

    def digits(self) -> list[str]:
        """Return the words of a run on the digits, smaller without a GPU."""
        sizes = ("train_dataset.crop_size", "eval_dataset.crop_size", "eval_dataset.resize_size")
        small = [f"{key}=16" for key in sizes] + [f"{part}_dataset.batch_size=256" for part in ("train", "eval")]
        return ["yamls/digits.yaml", *([] if self.has_gpu else small)]

    def probe(self) -> dict[str, Any]:
        """Find out about the machine, and return it; with the key `fault` if that fails."""
        ended = self.call("proof_session.probe", limit=90)
        self.machine = {"fault": ended.fault} if ended.fault else ended.json()
        return self.machine


class Child:
    """A process of a session, with all that it starts; it ends with this program."""

    def __init__(self, session: Session, words: Sequence[str], env: dict[str, str]) -> None:
        self.session, self.words, self.started = session, words, time.monotonic()
        self._output = tempfile.TemporaryFile("w+", dir=session.folder, errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "160", **env},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGKILL),
        )

    def wait(self, limit: float) -> Ended:
        """Wait for the end, and kill what is left after `limit` seconds; OutOfTime if the session's time ends first."""
        status = None
        try:
            status = self.process.wait(max(0.0, min(limit, self.session.left)))
        except subprocess.TimeoutExpired:
            if self.session.left <= 0:
                raise OutOfTime from None
        finally:
            text = self.kill()
        return Ended(status, text, time.monotonic() - self.started)

    def kill(self) -> str:
        """Kill the process and its own, append its output to the log, and return it, the first time."""
        if self._output.closed:
            return ""
        with contextlib.suppress(ProcessLookupError):  # nothing is left of its group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._output.seek(0)
        text = self._output.read()
        self._output.close()
        with self.session.log.open("a") as log:
            log.write(f"\n$ python {' '.join(self.words)}\n{text}")
        return text

    def until(self, condition: Callable[[], Any], limit: float) -> bool:
        """Poll until the condition holds, the process ends, or `limit` seconds are over; return whether it holds."""
        end = time.monotonic() + min(limit, self.session.left)
        while not condition() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if self.session.left <= 0:
            raise OutOfTime
        return bool(condition())


def batch_of(checkpoint: Path) -> int:
    """Return the batch after which a checkpoint was saved, from its name."""
    return int(checkpoint.name.split("-")[1].removeprefix("ba"))


def probe() -> None:
    """Print what the machine has as JSON; imports what a run imports."""
    import torch

    from loaders.images import native
    from training import fit, record  # noqa: F401  # fit imports the rest

    gpu, driver = torch.cuda.is_available(), None
    if gpu and (smi := shutil.which("nvidia-smi")):
        query = [smi, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip() or None
    found = {"gpu": torch.cuda.get_device_name() if gpu else None, "count": 1, "driver": driver}
    found |= {"torch": torch.__version__.partition("+")[0], "cuda": torch.version.cuda, "commit": record.commit()}
    found |= {"gib": torch.cuda.get_device_properties(0).total_memory // 2**30} if gpu else {}
    found |= {"python": sys.version.split()[0], "cores": len(os.sched_getaffinity(0))}
    found |= {"native decoder": native.available(), "compiler": any(map(shutil.which, ("cc", "gcc", "clang")))}
    print(json.dumps(found))
