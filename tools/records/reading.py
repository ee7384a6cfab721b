"""Read run folders: use the readable files, report the others, and drop nothing."""

import enum
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.errors import ConfigError, UserError
from config.read import Tree, check_depth
from tools.records.configs import completed
from tools.records.trust import DIGITS, check_tree, is_number, mapping, read_own, real

BASELINE = "baseline.yaml"
FILES = ("config.yaml", "environment.json", "metrics.csv", "summary.json")
INTEGERS = ("epoch", "step", "image_size")
DEPTH = 3  # levels below a given folder that are searched for runs, since a sweep has its own folder
Columns = dict[str, np.ndarray]


class State(enum.StrEnum):
    """How a run ended, according to its folder."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, after saving
    FAILED = "failed"
    UNFINISHED = "unfinished"  # no readable summary: still running, or killed
    UNREADABLE = "unreadable"


@dataclass
class Record:
    """The files of one run; missing or unreadable ones are empty."""

    folder: Path
    name: str  # of the folder, with as many parents as make it unique
    config: Tree = field(default_factory=dict)  # with every key of the schema
    environment: dict[str, Any] = field(default_factory=dict)
    baseline: Tree = field(default_factory=dict)  # compared with at the start; empty in older runs
    rows: Columns = field(default_factory=dict)  # of metrics.csv: float64 or int64 [evaluations], NaN for empty cells
    summary: dict[str, Any] = field(default_factory=dict)
    state: State = State.UNREADABLE
    ended: str = ""  # the state as a sentence
    remarks: list[str] = field(default_factory=list)  # on missing and damaged files

    def __len__(self) -> int:
        """Return the number of evaluations."""
        return len(self.column("step"))

    def column(self, name: str) -> np.ndarray:
        """Return a column of metrics.csv; empty if there is none."""
        return self.rows.get(name, np.empty(0))

    def final(self, name: str) -> float | None:
        """Return a final figure, from the summary or else the last evaluation."""
        value = self.summary.get(name)
        if not is_number(value) or self.is_beyond_its_summary:
            values = self.column(name)
            value = float(values[-1]) if len(values) else None
        return float(value) if is_number(value) else None

    @property
    def is_beyond_its_summary(self) -> bool:
        """Whether the run continued after the stop that its summary reports."""
        step = self.summary.get("step")
        return is_number(step) and len(self) > 0 and self.rows["step"][-1] > step

    @property
    def recipe(self) -> str:
        """Name of the recipe, for a file without folder and suffix."""
        return Path(str(self.environment.get("recipe") or self.summary.get("recipe") or "unknown recipe")).stem

    @property
    def hardware(self) -> str:
        """Devices, such as `8x NVIDIA A100-SXM4-40GB`."""
        device, count = str(self.environment.get("device", "")), self.environment.get("world_size", 1)
        if not device:
            return "unknown hardware"
        if device.startswith("CPU"):
            return device if count == 1 else f"{device}, {count} processes"
        return f"{count}x {device}"

    @property
    def total_seconds(self) -> float | None:
        """Wall clock that was paid for, with evaluations and restarts; None if unknown."""
        known = [self.summary.get("total_seconds"), *self.column("total_seconds")]
        return max((float(value) for value in known if is_number(value)), default=None)


def read_runs(places: Sequence[Path | str]) -> list[Record]:
    """Read all runs in run folders, or in folders such as runs/, sorted by name; UserError if there are none."""
    folders: dict[Path, Path] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise UserError(f"{place}: no such folder; name runs/ or folders of runs in it")
        place = real(place)
        for folder in _find(place, DEPTH, place):
            folders.setdefault(folder.resolve(), folder)
    records = [read_run(folder) for folder in folders.values()]
    if not any(record.config for record in records):
        raise UserError(
            f"{', '.join(map(str, places))}: no run found; a run leaves {', '.join(FILES)} in runs/NAME. "
            "Train one (`make train` takes a minute), or name the folder that your runs are in"
        )
    _tell_apart(records)
    return sorted(records, key=lambda record: record.name)


def _find(folder: Path, depth: int, place: Path) -> list[Path]:
    """Return the run folders in a folder, itself included, and the innermost folders that hold no run.

    Links come last, after the folders that they repeat; one that leads out of `place` is not entered.
    """
    if folder.is_symlink() or _is_run(folder):
        return [folder]
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if depth == 0 or not inner:
        return [folder]
    inner.sort(key=lambda path: (path.is_symlink(), path))
    runs = [run for path in inner for run in _find(real(path, place), depth - 1, place)]
    return runs if any(run.is_symlink() or _is_run(run) for run in runs) else [folder]


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)


def _tell_apart(records: list[Record]) -> None:
    """Prefix equal names with as many parent folders as make them differ."""
    parts = 1
    while clashing := [n for n, count in Counter(record.name for record in records).items() if count > 1]:
        parts += 1
        for record in records:
            if record.name in clashing:
                record.name = "/".join(record.folder.resolve().parts[-parts:])


def read_run(folder: Path) -> Record:
    """Read one run; its state and remarks report any damage."""
    if folder.is_symlink():
        return Record(folder, folder.name, ended="a link that leads out of the folder that it is in is not followed")
    record = Record(folder, folder.resolve().name)
    if not _is_run(folder):
        record.ended = f"not a run: it holds none of {', '.join(FILES)}"
        return record
    remarks = record.remarks
    record.config = read_own(folder, "config.yaml", _config, remarks, is_required=True) or {}
    record.environment = read_own(folder, "environment.json", mapping, remarks, is_required=True) or {}
    record.baseline = read_own(folder, BASELINE, _config, remarks) or {}
    record.rows = read_own(folder, "metrics.csv", lambda path: _rows(path, remarks), remarks, is_required=True) or {}
    before = len(remarks)
    record.summary = read_own(folder, "summary.json", mapping, remarks) or {}
    record.state, record.ended = _ending(record, "; ".join(remarks[before:]))
    return record


def _config(path: Path) -> Tree:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if libyaml is there
    text = path.read_text()
    check_depth(text)
    content = yaml.load(text, loader)
    check_tree(content)
    return completed(content)


def _rows(path: Path, remarks: list[str]) -> Columns:
    """Return metrics.csv by column; incomplete rows are left out, with a remark."""
    header, *lines = path.read_text().split("\n")
    names = header.split(",")
    if not {"step", "top1"} <= set(names):
        raise ConfigError("its first line does not name the columns")
    if (last := lines.pop() if lines else "") != "":
        remarks.append(f"metrics.csv is cut off in line {len(lines) + 2}: {last[:40]!r} is not used")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            rows.append(_numbers(names, line.split(",")))
        except ValueError:
            remarks.append(f"line {number} of metrics.csv is not a whole row: {line[:40]!r} is not used")
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    columns = dict(zip(names, table.T, strict=True))
    return {name: values.astype(np.int64) if name in INTEGERS else values for name, values in columns.items()}


def _numbers(names: list[str], cells: Iterable[str]) -> list[float]:
    """Return the numbers of a row, NaN for what is not a number; INTEGERS must be whole."""
    row = []
    for name, cell in zip(names, cells, strict=True):
        value = float(cell) if cell or name in INTEGERS else math.nan
        if name in INTEGERS and not (abs(value) < 10**DIGITS and value == int(value)):
            raise ValueError(f"{name} is {cell}")
        row.append(value if is_number(value) else math.nan)
    return row


def _ending(record: Record, damage: str) -> tuple[State, str]:
    """Return how a run ended, by its summary and the damage to it."""
    if not record.config:
        return State.UNREADABLE, "; ".join(record.remarks)
    word = str(record.summary.get("ended", ""))
    step = f"at step {record.rows['step'][-1]:,}, " if len(record) else ""
    reached = f"{step}after {len(record)} evaluations"
    if damage:
        return State.UNFINISHED, f"{damage}: it is damaged, and nothing else says how the run ended, {reached}"
    if not word:
        return State.UNFINISHED, f"no summary {reached}: it is still running, or was killed"
    if record.is_beyond_its_summary:
        return State.UNFINISHED, f"continued after it was {word}, and has no summary since, {reached}"
    if word == State.FINISHED:
        if record.final("top1") is None:
            return State.UNREADABLE, "finished, but without a top-1"
        return State.FINISHED, word
    return State.FAILED if word.startswith("failed") else State.STOPPED, word
