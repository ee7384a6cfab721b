"""Reading runs/<name>/ back: whatever is there is used, whatever is wrong with it is said, nothing is dropped."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.errors import ConfigError, UserError
from config.read import Tree, check_depth
from tools.records.configs import completed
from tools.records.trust import DIGITS, check_tree, is_number, mapping, own_file, real

BASELINE = "baseline.yaml"
FILES = ("config.yaml", "environment.json", "metrics.csv", "summary.json")
INTEGERS = ("epoch", "step", "image_size")
DEPTH = 3  # folders below a given one in which runs are looked for: a sweep has a folder of its own
Columns = dict[str, np.ndarray]


class State(enum.StrEnum):
    """How a run ended, as far as its folder says."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by a signal, in good order
    FAILED = "failed"
    UNFINISHED = "unfinished"  # no last word that can be read: it runs still, or was killed
    UNREADABLE = "unreadable"


@dataclass
class Record:
    """What one run left behind.

    Attributes:
        folder: where.
        name: of the folder, with as many of those above it as tell it from others of that name.
        config: the merged configuration, complete; empty where it cannot be read.
        environment: the machine, the versions, the command; may be empty.
        baseline: what the run compared its configuration with when it started; empty in older runs.
        rows: metrics.csv by column, each float64 or int64 [evaluations]; NaN where a cell is empty.
        summary: the final figures; may be empty.
        state: how it ended.
        ended: the same as a sentence.
        remarks: what was missing or broken, a sentence each.
    """

    folder: Path
    name: str
    config: Tree = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    baseline: Tree = field(default_factory=dict)
    rows: Columns = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    state: State = State.UNREADABLE
    ended: str = ""
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Evaluations."""
        return len(self.column("step"))

    def column(self, name: str) -> np.ndarray:
        """A column of metrics.csv; empty where there is none."""
        return self.rows.get(name, np.empty(0))

    def final(self, name: str) -> float | None:
        """A figure at the end, from the summary or the last evaluation: top1 and top5 in per cent, times in seconds."""
        value = self.summary.get(name)
        if not is_number(value) or self.is_beyond_its_summary:
            values = self.column(name)
            value = float(values[-1]) if len(values) else None
        return float(value) if is_number(value) else None

    @property
    def is_beyond_its_summary(self) -> bool:
        """Whether it went on after the stop that its summary tells of."""
        step = self.summary.get("step")
        return is_number(step) and len(self) > 0 and self.rows["step"][-1] > step

    @property
    def recipe(self) -> str:
        """The recipe's name, of a file of the user's without folder and ending."""
        return Path(str(self.environment.get("recipe") or self.summary.get("recipe") or "unknown recipe")).stem

    @property
    def hardware(self) -> str:
        """The devices, such as `8x NVIDIA A100-SXM4-40GB`."""
        device, count = str(self.environment.get("device", "")), self.environment.get("world_size", 1)
        if not device:
            return "unknown hardware"
        if device.startswith("CPU"):
            return device if count == 1 else f"{device}, {count} processes"
        return f"{count}x {device}"

    @property
    def total_seconds(self) -> float | None:
        """Wall clock that is known to have been paid: training, evaluation and restarts."""
        known = [self.summary.get("total_seconds"), *self.column("total_seconds")]
        return max((float(value) for value in known if is_number(value)), default=None)


def read_runs(places: Sequence[Path | str]) -> list[Record]:
    """All runs in the folders, in the order of their names.

    Args:
        places: run folders, or folders such as runs/ that hold some.

    Raises:
        UserError: there is none.
    """
    folders: dict[Path, Path] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise UserError(f"{place}: there is no such folder; name runs/ or folders of runs in it")
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
    """The run folders in a folder, itself included; a folder at the bottom that holds no run is handed back as well.

    Links are looked at last, because they show again what has a path of its own; one that leads out of `place` is not
    looked into.
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
    """Give runs of one name as much of their path as tells them apart."""
    parts = 1
    while clashing := [n for n, count in Counter(record.name for record in records).items() if count > 1]:
        parts += 1
        for record in records:
            if record.name in clashing:
                record.name = "/".join(record.folder.resolve().parts[-parts:])


def read_run(folder: Path) -> Record:
    """One run; whatever is wrong with it is in its state and its remarks."""
    if folder.is_symlink():
        return Record(folder, folder.name, ended="a link that leads out of the folder that it is in is not followed")
    record = Record(folder, folder.resolve().name)
    if not _is_run(folder):
        record.ended = f"no run: it holds none of {', '.join(FILES)}"
        return record
    record.config = _read(record, "config.yaml", _config, {})
    record.environment = _read(record, "environment.json", mapping, {})
    record.baseline = _read(record, BASELINE, _config, {}) if (folder / BASELINE).exists() else {}
    record.rows = _read(record, "metrics.csv", lambda text: _rows(text, record.remarks), {})
    before = len(record.remarks)
    record.summary = _read(record, "summary.json", mapping, {}) if (folder / "summary.json").exists() else {}
    record.state, record.ended = _ending(record, "; ".join(record.remarks[before:]))
    return record


def _read(record: Record, name: str, parse: Callable[[str], Any], otherwise: Any) -> Any:
    """A file of the run, or `otherwise` and a remark."""
    try:
        return parse(own_file(record.folder, name).read_text())
    except FileNotFoundError:
        record.remarks.append(f"{name} is missing")
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in a circle
        record.remarks.append(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})")
    except (ValueError, yaml.YAMLError) as error:  # ConfigError and UnicodeDecodeError are ValueErrors
        record.remarks.append(f"{name} cannot be read ({' '.join(str(error).split())[:160]})")
    return otherwise


def _config(text: str) -> Tree:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    check_depth(text)
    content = yaml.load(text, loader)
    check_tree(content)
    return completed(content)


def _rows(text: str, remarks: list[str]) -> Columns:
    """metrics.csv by column; a row that is not whole is left out and said."""
    header, *lines = text.split("\n")
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
            remarks.append(f"line {number} of metrics.csv is no whole row: {line[:40]!r} is not used")
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    columns = dict(zip(names, table.T, strict=True))
    return {name: values.astype(np.int64) if name in INTEGERS else values for name, values in columns.items()}


def _numbers(names: list[str], cells: Iterable[str]) -> list[float]:
    """A row's numbers; those that count something are whole ones, of the others what is no figure is NaN."""
    row = []
    for name, cell in zip(names, cells, strict=True):
        value = float(cell) if cell or name in INTEGERS else math.nan
        if name in INTEGERS and not (abs(value) < 10**DIGITS and value == int(value)):
            raise ValueError(f"{name} is {cell}")
        row.append(value if is_number(value) else math.nan)
    return row


def _ending(record: Record, damage: str) -> tuple[State, str]:
    """How a run ended, from its summary, from what is wrong with that, and from what is missing."""
    if not record.config:
        return State.UNREADABLE, "; ".join(record.remarks)
    said = str(record.summary.get("ended", ""))
    reached = f"after {len(record)} evaluations"
    if len(record):
        reached = f"at step {record.rows['step'][-1]:,}, after {len(record)} evaluations"
    if damage:
        return State.UNFINISHED, f"{damage}: it is damaged, and nothing else says how the run ended, {reached}"
    if not said:
        return State.UNFINISHED, f"no summary {reached}: it runs still, or was killed"
    if record.is_beyond_its_summary:
        return State.UNFINISHED, f"went on after it was {said}, no word since {reached}"
    if said == State.FINISHED:
        if record.final("top1") is None:
            return State.UNREADABLE, "finished, but without a top-1"
        return State.FINISHED, said
    return State.FAILED if said.startswith("failed") else State.STOPPED, said
