"""Check that everything works on a GPU, and measure it. One GPU and ten minutes are enough.

    python -m benchmarks.gpu_proof                                          # results/measured/<gpu>.json, and a table
    python -m benchmarks.gpu_proof --stages ops,resume --minutes 3 --out build/proof.json

Each stage prints one line, PASS, FAIL or SKIP, and none hides another: a stage runs in processes of its own. Results
are written after every check, so that an interrupted proof keeps what was finished; the output of the processes is
appended to a .log file next to them. A stage that needs a GPU, or more time than is left, is skipped, with the reason.
Only the standard library, torch and the project's own imports are needed. The exit status is 1 if a stage failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import proof_stages
from benchmarks.proof_session import Check, OutOfTime, Session
from common import command
from common.errors import ConfigError, UserError, counted
from common.suggest import did_you_mean, listing
from common.terminal import check_writable
from common.whole_files import write_whole
from config.read import ROOT
from tools.records.measured import MEASURED, VERSION, markdown, problems

TRIAL = ROOT / "build/gpu_proof.json"  # not for results/measured: what a machine without a GPU finds

TRIED = 20.0  # seconds at least for a stage without a GPU, where it runs on a smaller scale


@dataclass(frozen=True)
class Stage:
    """A stage of the proof.

    Args:
        name: as in --stages.
        needs_gpu: whether it is skipped without one.
        seconds: estimate on a GPU; the stage is skipped if less time is left.
        run: yields its checks.
    """

    name: str
    needs_gpu: bool
    seconds: float
    run: Callable[[Session], Iterator[Check]]


# What is quick comes first, because the time may end; `speed` and `loading` keep what they have measured by then.
STAGES = (
    Stage("environment", False, 0, proof_stages.environment),
    Stage("ops", False, 20, proof_stages.ops),
    Stage("recipes", False, 80, proof_stages.recipes),
    Stage("resume", False, 35, proof_stages.resume),
    Stage("sigterm", False, 20, proof_stages.sigterm),
    Stage("parity", False, 15, proof_stages.parity),
    Stage("memory", True, 60, proof_stages.memory),
    Stage("speed", False, 240, proof_stages.speed),
    Stage("compile", True, 60, proof_stages.compiled),
    Stage("loading", False, 50, proof_stages.loading),
)


@dataclass
class Results:
    """The results so far, written to a file after every check.

    Args:
        file: to write.
        machine: as `proof_session.probe` describes it.
        argv: of this program.
    """

    file: Path
    machine: dict[str, Any]
    argv: Sequence[str]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """Return the content of the file, in the schema of tools/records/measured.py."""
        return {
            "version": VERSION,
            "hardware": {key: self.machine.get(key) for key in ("gpu", "count", "driver", "torch", "cuda")},
            "commit": self.machine.get("commit"),
            "date": date.today().isoformat(),
            "command": shlex.join(["python", "-m", "benchmarks.gpu_proof", *self.argv]),
            "runs": self.runs,
            "stages": list(self.stages.values()),
        }

    def write(self) -> None:
        """Replace the file."""
        write_whole(self.file, (json.dumps(self.content(), indent=2) + "\n").encode())


def verdict(checks: Sequence[Check], why_not: str) -> tuple[str, str]:
    """Return a stage's status and one line about it.

    Args:
        checks: those that were made.
        why_not: why there are no more; empty if the stage ended by itself.
    """
    failed = [check for check in checks if not check.ok]
    said = [check.said for check in failed or checks]
    if failed:
        said.insert(0, f"{len(failed)} of {len(checks)} failed")
    if why_not:
        said.append(f"{why_not} after {counted(len(checks), 'check', 'checks')}" if checks else why_not)
    elif not checks:
        return "FAIL", "it checked nothing"
    status = "FAIL" if failed else "SKIP" if why_not else "PASS"
    return status, " ".join("; ".join(said).split())


def run_stage(stage: Stage, session: Session, results: Results) -> str:
    """Run a stage, record each of its checks at once, and return its status."""
    started, why_not = time.monotonic(), ""
    checks: list[Check] = []

    def record() -> tuple[str, str]:
        status, said = verdict(checks, why_not)
        seconds = round(time.monotonic() - started, 1)
        results.stages[stage.name] = {"name": stage.name, "status": status, "seconds": seconds, "said": said}
        results.write()
        return status, said

    if stage.needs_gpu and not session.has_gpu:
        why_not = "needs a GPU"
    elif session.left < (seconds := stage.seconds if session.has_gpu else min(stage.seconds, TRIED)):
        why_not = f"needs about {seconds:.0f} s, and {max(session.left, 0):.0f} s are left (--minutes)"
    else:
        try:
            for check in stage.run(session):
                checks.append(check)
                results.runs += [check.run] if check.run else []
                why_not = "interrupted"  # unless a later check replaces what is recorded here
                record()
            why_not = ""
        except OutOfTime:
            why_not = "the time was over (--minutes)"
        except Exception as error:  # the next stage still runs
            checks.append(Check(False, f"{type(error).__name__}: {error}"))
            why_not = ""
        finally:
            session.kill()
    status, said = record()
    print(f"{status} {stage.name}, {time.monotonic() - started:.0f} s: {said}", flush=True)
    return status


def chosen(names: str | None) -> list[Stage]:
    """Return the stages named in --stages, in the order of STAGES; ConfigError for an unknown one."""
    known = {stage.name: stage for stage in STAGES}
    wanted = list(known) if names is None else [name.strip() for name in names.split(",")]
    unknown = [f"--stages: {n!r} given, but it must be {listing(known)}{did_you_mean(n, known)}" for n in wanted]
    if wrong := [problem for name, problem in zip(wanted, unknown, strict=True) if name not in known]:
        raise ConfigError(*wrong)
    return [stage for stage in STAGES if stage.name in wanted]


def output(given: Path | None, gpu: str | None) -> Path:
    """Return the file to write; UserError if the GPU has results and no other file is named."""
    file = given or (MEASURED / f"{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json" if gpu else TRIAL)
    if gpu and not given and file.exists():
        raise UserError(f"{file}: exists. Delete it to measure again, or name another file: --out FILE")
    file.parent.mkdir(parents=True, exist_ok=True)
    check_writable(file)
    return file


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for an impossible value."""
    parser = command.parser("benchmarks.gpu_proof", __doc__)
    parser.add_argument("--minutes", type=float, default=10, help="after which it ends (default: %(default)s)")
    parser.add_argument("--stages", help=f"some of {','.join(stage.name for stage in STAGES)} (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results (default: results/measured/<gpu>.json)")
    given = parser.parse_args(argv)
    if not 0 < given.minutes < 1e6:
        raise ConfigError(f"--minutes {given.minutes:g}: must be above 0")
    given.stages = chosen(given.stages)
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages, print a line for each and the table, and return 0, or 1 if a stage failed."""
    argv = sys.argv[1:] if argv is None else argv
    started, given = time.monotonic(), parse(argv)
    with tempfile.TemporaryDirectory(prefix="gpu_proof-", ignore_cleanup_errors=True) as folder:
        session = Session(Path(folder), started + 60 * given.minutes)
        machine = session.probe()
        results = Results(output(given.out, machine.get("gpu")), machine, argv)
        session.log = results.file.with_suffix(".log")
        try:
            statuses = [run_stage(stage, session, results) for stage in given.stages]
        finally:  # Ctrl-C too
            if results.runs:
                print(f"\n{markdown(results.content())}\n")
            print(f"written: {results.file} and {session.log}")
    if not session.has_gpu:
        print("a trial: without a GPU there is nothing for results/measured")
    elif unfit := problems(results.content()):
        print("not yet for results/measured:", *unfit, sep="\n  ")
    return int("FAIL" in statuses)


run = partial(command.run, main)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a scheduler's time limit: what was finished is printed
    sys.exit(run())
