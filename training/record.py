"""What a run leaves behind: runs/<run_name>/ with its configuration, environment, metrics and summary."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sized
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from composer.utils import dist
from omegaconf import OmegaConf

from common.lock_file import LockFile
from config import Run
from config.load import baseline_of
from loaders.images.decoders import decoders_of
from training import earlier_run
from training.devices import on_rank_zero
from training.identity import plain
from training.secrets import redacted
from training.trackers import ID, Tracked

LATEST = "latest-rank0.pt"
# Read before Composer fills in what a launcher would have set.
_LAUNCHED = "LOCAL_WORLD_SIZE" in os.environ
COLUMNS = (
    "epoch",
    "step",
    "train_loss",
    "val_loss",
    "top1",
    "top5",
    "lr",
    "image_size",
    "train_seconds",
    "eval_seconds",
    "wait_seconds",
    "total_seconds",
    "samples_per_second",
)


class RunFolder:
    """runs/<run_name>/ of one run. Rank 0 writes, each file at once and whole."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        self.name = path.name
        self.rows: list[dict[str, Any]] = []
        self.lock: LockFile | None = None  # rank 0's
        self.tracked: Tracked | None = None

    def write_start(self, data: dict[str, Any] | None = None) -> None:
        """Write config.yaml, baseline.yaml and environment.json; `data` is what describe() says of them."""
        config = OmegaConf.create(plain(self.run))
        # A name would collide with this very folder, only a named run resumes, and a recipe is already merged in.
        config.run_name = config.recipe_name = None
        config.autoresume = False
        recipe = self.run.recipe_name
        header = f"# {self.name}, recipe {recipe}: the merged configuration, runnable as it stands:\n"
        header += f"# composer main.py {shlex.quote(str(self.path / 'config.yaml'))}\n"
        self.write("config.yaml", header + OmegaConf.to_yaml(config))
        # With recipes of today: a report of this run may be made from a checkout with others.
        against, baseline = baseline_of(self.run.argv)
        header = f"# {against}: what tools.report compares {self.name} with\n"
        self.write("baseline.yaml", header + OmegaConf.to_yaml(OmegaConf.create(redacted(baseline))))
        more = {"baseline": against} | ({ID: self.tracked.id} if self.tracked else {})
        self.write("environment.json", json.dumps(environment(self.run, data) | more, indent=2) + "\n")

    def start_over(self) -> None:
        """Remove the figures of a run that is written over: they would be taken for this one's."""
        if dist.get_global_rank() == 0:
            for name in ("metrics.csv", "summary.json"):
                (self.path / name).unlink(missing_ok=True)

    def is_finished(self, step: int) -> bool:
        """Whether this run goes on from where it finished, at its full length or because a callback ended it there."""
        return self.run.config.autoresume and on_rank_zero(self._finished_at) == step

    def _finished_at(self) -> int | None:
        summary = earlier_run.mapping(self.path / "summary.json")
        return summary.get("step") if summary.get("ended") == "finished" else None

    def load_rows(self, last_step: int) -> None:
        """Take up the rows of the interrupted run, up to and with those of a step."""
        self.rows = [row for row in earlier_run.rows(self.path, COLUMNS) if int(row["step"]) <= last_step]

    def seconds_paid(self) -> float:
        """The clock of everything when the interrupted run last wrote; a killed one went on after its checkpoint."""
        paid = [float(row["total_seconds"]) for row in earlier_run.rows(self.path, COLUMNS)]
        last = earlier_run.mapping(self.path / "summary.json").get("total_seconds")
        return max([0.0, *paid, last if isinstance(last, float) and math.isfinite(last) else 0.0])

    def add_row(self, row: dict[str, Any]) -> None:
        """Add one evaluation to metrics.csv."""
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self.write("metrics.csv", text.getvalue())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json: the final figures and how the run ended; null for a figure that is not a number."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
        self.write("summary.json", json.dumps(finite, indent=2, allow_nan=False) + "\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this run within; remove it if the run is refused before anything was written into it."""
        try:
            yield
        except BaseException:
            self._release()
            if dist.get_global_rank() == 0:
                with contextlib.suppress(OSError):  # it holds something, or is not there
                    self.path.rmdir()
                    self.path.parent.rmdir()
            raise
        self._release()

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def keep_output(self) -> None:
        """Keep what every other rank prints in a file: the launcher shows rank 0 alone and deletes the rest."""
        if dist.get_global_rank() and self.run.config.is_train:
            keep_output(self.path / "logs" / f"rank{dist.get_global_rank()}.log")

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all, and only on rank 0."""
        if dist.get_global_rank() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            temporary = self.path / f".{name}.tmp"
            temporary.unlink(missing_ok=True)  # a link would be followed, wherever it leads
            temporary.write_text(text)
            os.replace(temporary, self.path / name)


def keep_output(file: Path) -> None:
    """Write what this rank prints into a file too: the launcher shows rank 0 alone and deletes the others' output."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        file.unlink()  # it is not ours: what it leads to would be written to
    log = file.open("a", buffering=1)
    for name in ("stdout", "stderr"):
        setattr(sys, name, _Tee(getattr(sys, name), log))


class _Tee(io.TextIOBase):
    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def fileno(self) -> int:
        return self.streams[0].fileno()


def describe(train: Sized, evaluation: Sized) -> dict[str, Any]:
    """What tells one data set from another, wherever it lies: how many images and classes, a hash of their names."""
    classes = getattr(train, "classes", None) or getattr(evaluation, "classes", None)  # a benchmark's have none
    return {
        "train_images": len(train),
        "eval_images": len(evaluation),
        "classes": len(classes) if classes else None,
        "names": hashlib.sha256("\n".join(classes).encode()).hexdigest()[:12] if classes else None,
    }


def environment(run: Run, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Where and with what a run was made, and of which data."""
    packages = ("torch", "torchvision", "mosaicml", "mosaicml-streaming", "omegaconf", "numpy", "pillow")
    gpu = torch.cuda.get_device_name() if run.machine.device == "gpu" else None
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command(run),
        "commit": commit(),
        "recipe": run.recipe_name,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "device": gpu or f"CPU, {len(os.sched_getaffinity(0))} cores ({platform.machine()})",
        "precision": run.machine.precision,
        "decoders": decoders_of(run.config),
        "world_size": dist.get_world_size(),
        "nodes": dist.get_world_size() // dist.get_local_world_size(),
        **({"data": data} if data else {}),
    }


def command(run: Run) -> str:
    """The command that repeats this run as a new one, without the secrets that it was given."""
    if not run.argv:
        return f"{Path(sys.argv[0]).name}: main(config)"
    ranks, nodes = dist.get_local_world_size(), dist.get_world_size() // dist.get_local_world_size()
    launcher = ["composer", "-n", str(ranks)] if _LAUNCHED else ["python"]
    if nodes > 1:
        rendezvous = ("--master_addr", os.environ["MASTER_ADDR"], "--master_port", os.environ["MASTER_PORT"])
        launcher += ["--world_size", str(dist.get_world_size()), "--node_rank", "NODE", *rendezvous]
    words = [word for word in run.argv if not word.startswith(("run_name=", "autoresume="))]
    return shlex.join([*launcher, "main.py", *redacted(words)])


def commit() -> str | None:
    """The commit of the code, with '+' if it was changed since; from RECIPES_COMMIT in an image, None if unknown."""
    if built_from := os.environ.get("RECIPES_COMMIT"):
        return built_from
    root = Path(__file__).parent.parent
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
