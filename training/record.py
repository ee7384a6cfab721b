"""The run folder, runs/<run_name>/: claim it for a run, and write its configuration, metrics and summary."""

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
from common.whole_files import whole_file
from config import ConfigError, Run, UserError
from config.load import baseline_of
from config.schema import AUTO, MIRRORED
from loaders.images import native
from training import earlier_run
from training.devices import on_rank_zero
from training.earlier_run import COLUMNS, differences, plain
from training.secrets import redacted
from training.trackers import ID, Tracked, tracked

ENDING = 2.0  # seconds that a requeued job waits for its predecessor to exit
# Read before Composer fills in what a launcher would have set.
_LAUNCHED = "LOCAL_WORLD_SIZE" in os.environ


class RunFolder:
    """Folder of one run, written by rank 0, each file completely or not at all."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        self.name = path.name
        self.rows: list[dict[str, Any]] = []
        self.lock = contextlib.ExitStack()  # releases rank 0's lock; empty on other ranks
        self.tracked: Tracked | None = None

    def write_start(
        self,
        data: dict[str, Any] | None = None,
        classes: dict[str, list[str]] | None = None,
        weights: dict[str, str] | None = None,
        trained: dict[str, Any] | None = None,
    ) -> None:
        """Write config.yaml, baseline.yaml, environment.json and classes.json.

        `data` is the result of describe(), `classes` that of named_classes(), `weights` the source and SHA-256 of
        pretrained ones, `trained` the result of training.param_groups.trained().
        """
        config = OmegaConf.create(plain(self.run))
        # The name would collide with this folder, only a named run resumes, and the recipe is already merged in.
        config.run_name = config.recipe_name = None
        config.autoresume = False
        recipe = self.run.recipe_name
        header = f"# {self.name}, recipe {recipe}: the merged configuration, runnable as it stands:\n"
        header += f"# composer main.py {shlex.quote(str(self.path / 'config.yaml'))}\n"
        self.write("config.yaml", header + OmegaConf.to_yaml(config))
        # With today's recipes: a later report may be made from a checkout with other ones.
        against, baseline = baseline_of(self.run.argv)
        if baseline["model"]["num_classes"] == AUTO:
            baseline["model"]["num_classes"] = config.model.num_classes
        header = f"# {against}: what tools.report compares {self.name} with\n"
        self.write("baseline.yaml", header + OmegaConf.to_yaml(OmegaConf.create(redacted(baseline))))
        more = (
            {"baseline": against}
            | ({"weights": weights} if weights else {})
            | (trained or {})
            | ({ID: self.tracked.id} if self.tracked else {})
        )
        self.write("environment.json", json.dumps(environment(self.run, data) | more, indent=2) + "\n")
        if classes:
            self.write("classes.json", json.dumps(classes, indent=2) + "\n")

    def start_over(self) -> None:
        """Remove the figures of an overwritten run, which would be taken for this one's."""
        if dist.get_global_rank() == 0:
            for name in ("metrics.csv", "summary.json", "classes.json"):
                (self.path / name).unlink(missing_ok=True)

    def is_finished(self, step: int) -> bool:
        """Whether this run resumes at the step where it finished, by its length or a callback."""
        return self.run.config.autoresume and on_rank_zero(self._finished_at) == step

    def _finished_at(self) -> int | None:
        summary = earlier_run.summary(self.path)
        return summary.get("step") if summary.get("ended") == "finished" else None

    def load_rows(self, last_step: int) -> None:
        """Load the rows of the interrupted run, up to and including a step."""
        self.rows = [row for row in earlier_run.rows(self.path) if int(row["step"]) <= last_step]

    def seconds_paid(self) -> float:
        """Return the total seconds that the interrupted run last wrote, which may be after its checkpoint."""
        paid = [float(row["total_seconds"]) for row in earlier_run.rows(self.path)]
        last = earlier_run.summary(self.path).get("total_seconds")
        return max([0.0, *paid, last if isinstance(last, float) and math.isfinite(last) else 0.0])

    def add_row(self, row: dict[str, Any]) -> None:
        """Add one evaluation to metrics.csv."""
        self.rows.append(row)
        text = io.StringIO()
        more = [column for column in MIRRORED if any(column in row for row in self.rows)]
        writer = csv.DictWriter(text, [*COLUMNS, *more], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self.write("metrics.csv", text.getvalue())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json: the final figures and how the run ended; null for figures that are not finite."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
        self.write("summary.json", json.dumps(finite, indent=2, allow_nan=False) + "\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder's lock; if the run fails before it wrote anything, remove the folder."""
        try:
            with self.lock:
                yield
        finally:
            if dist.get_global_rank() == 0:
                with contextlib.suppress(OSError):  # not empty, or missing
                    self.path.rmdir()
                    self.path.parent.rmdir()

    def keep_output(self) -> None:
        """Keep the output of the ranks other than 0 in files; the launcher deletes it."""
        if dist.get_global_rank() and self.run.config.is_train:
            keep_output(self.path / "logs" / f"rank{dist.get_global_rank()}.log")

    def write(self, name: str, text: str) -> None:
        """Write a file completely or not at all, on rank 0 only."""
        if dist.get_global_rank() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path / name, self.path / f".{name}.tmp") as temporary:
                temporary.unlink(missing_ok=True)  # a killed run's, or a link, which would be followed
                temporary.write_text(text)


def claim(run: Run) -> RunFolder:
    """Return the folder of this run, the same on every rank; rank 0 holds its lock while it is held().

    Fails if another run uses the folder, or if it exists and this run neither resumes nor overwrites it.
    """
    with contextlib.ExitStack() as lock:
        folder = RunFolder(Path(on_rank_zero(_choose, run, lock)), run)
        folder.tracked = on_rank_zero(tracked, run, folder.path) if run.config.is_train else None
        folder.lock = lock.pop_all()
    return folder


def _choose(run: Run, lock: contextlib.ExitStack) -> str:
    config = run.config
    path = Path(config.runs_folder) / (config.run_name or run.default_name())
    if not config.is_train:
        return str(path)
    is_free = bool(config.run_name) and not (run.lenient and (path / "config.yaml").exists())
    path = _make(path, config.autoresume or config.save_overwrite or is_free)
    lock.callback(LockFile(path, ENDING if config.autoresume else 0.0).release)
    _check_same_run(path, run)
    return str(path)


def _check_same_run(path: Path, run: Run) -> None:
    """Raise ConfigError if the folder has a run that this one can neither resume nor overwrite."""
    has_run = (path / "config.yaml").exists()
    if has_run and run.config.autoresume:
        if changed := differences(earlier_run.configuration(path), plain(run)):
            raise ConfigError(
                f"{path}: autoresume=true cannot resume this run, because its configuration differs: "
                f"{'; '.join(changed)}. Use the old values, or start a new run from its checkpoint: type "
                "autoresume=false run_name=ANOTHER load_path=CHECKPOINT"
            )
    elif has_run and not run.config.save_overwrite:
        raise ConfigError(
            f"run_name: {path} already exists. Use autoresume=true to resume it, save_overwrite=true to overwrite it, "
            "or another run_name=ANOTHER"
        )


def _make(path: Path, may_exist: bool) -> Path:
    """Create the folder; if it must be new and exists, path-2, ...: two runs may start in the same second."""
    name, number = path, 1
    while True:
        try:
            name.mkdir(parents=True, exist_ok=may_exist)
            return name
        except OSError as error:
            is_taken = isinstance(error, FileExistsError)
            if is_taken and name.is_dir():
                number += 1
                name = Path(f"{path}-{number}")
                continue
            fault = "exists and is not a folder" if is_taken else f"cannot be created ({error.strerror})"
            raise UserError(f"runs_folder: {name} {fault}; use another one: runs_folder=FOLDER") from None


def keep_output(file: Path) -> None:
    """Copy this process's output to a file, from now on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        file.unlink()  # not ours: its target would be overwritten
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

    def close(self) -> None:
        """Leave the streams to their owners: Python closes an object that nobody uses any more."""

    def fileno(self) -> int:
        return self.streams[0].fileno()


def describe(train: Sized, evaluation: Sized) -> dict[str, Any]:
    """Return what identifies a data set wherever it is: numbers of images and classes, a hash of the class names."""
    classes = getattr(train, "classes", None) or getattr(evaluation, "classes", None)  # benchmarks' data have none
    return {
        "train_images": len(train),
        "eval_images": len(evaluation),
        "classes": len(classes) if classes else None,
        "names": hashlib.sha256("\n".join(classes).encode()).hexdigest()[:12] if classes else None,
    }


def environment(run: Run, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the command, versions, hardware and data of a run."""
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
        "decoders": run.decoders,
        "huffman_decoder": native.huffman_decoder(),
        "world_size": dist.get_world_size(),
        "nodes": dist.get_world_size() // dist.get_local_world_size(),
        **({"data": data} if data else {}),
    }


def command(run: Run) -> str:
    """Return the command that repeats this run as a new one, without secrets."""
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
    """Return the commit of the code, with '+' if the code was changed since; None if unknown."""
    if built_from := os.environ.get("RECIPES_COMMIT"):  # in a container image
        return built_from
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
