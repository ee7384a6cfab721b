"""Groups of runs that repeat each other: same data, model, recipe, length, configuration and hardware; their curves."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from config.schema import MOST_WITHOUT_TOP5
from tools.records.configs import durations, settings
from tools.records.reading import Record, State
from tools.records.trust import is_count

IMAGENET = (1_281_167, 50_000, 1000)
MOST_KEYS = 4  # in a label
POINTS = 120  # of a curve over time
SIGMAS = 2.0  # half the width of a band, in standard deviations


@dataclass(frozen=True)
class DataSet:
    """The images that a run saw."""

    train_images: int | None  # None if not recorded
    eval_images: int | None
    classes: int | None
    names: str | None = None  # a hash of the class names; None if the data have none
    path: str = ""

    @property
    def is_imagenet(self) -> bool:
        """Whether the numbers of images and classes are ImageNet-1k's."""
        return (self.train_images, self.eval_images, self.classes) == IMAGENET

    @property
    def has_top5(self) -> bool:
        """Whether there are enough classes for top-5 to mean something."""
        return self.classes is None or self.classes > MOST_WITHOUT_TOP5

    @property
    def title(self) -> str:
        """Title of the data set."""
        if self.train_images is None:
            return f"{self.path or 'unknown data'} (the number of images was not recorded)"
        name = "ImageNet-1k" if self.is_imagenet else self.path or "data"
        return f"{name}: {self.train_images:,} images, {self.eval_images:,} to evaluate, {self.classes} classes"


@dataclass(frozen=True)
class Spread:
    """A figure over n repeated runs: mean and standard deviation with ddof=1 (None for one run)."""

    n: int
    mean: float
    sd: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(len(known), statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


@dataclass
class Group:
    """Finished runs that differ only in their seed."""

    recipe: str
    length: str  # such as 36ep
    hardware: str  # such as 8x NVIDIA A100-SXM4-40GB
    settings: dict[str, Any]  # dotted key -> value
    records: list[Record]
    differs: str = ""  # from other groups of its recipe and length, as in optimizer.lr=0.5

    @property
    def label(self) -> str:
        """Name of the group, unique in its table."""
        return f"{self.recipe}, {self.length}{f', {self.differs}' if self.differs else ''}"

    def figure(self, name: str) -> Spread | None:
        """Return the final value of a column of metrics.csv over the runs."""
        total = name == "total_seconds"
        return spread(record.total_seconds if total else record.final(name) for record in self.records)

    @property
    def remarks(self) -> list[str]:
        """Caveats about the mean."""
        seeds = [str(record.config["seed"]) for record in self.records]
        commits = {str(record.environment.get("commit")) for record in self.records}
        remarks = []
        if len(set(seeds)) < len(seeds):
            remarks.append(f"{self.label}: {len(seeds)} runs, but not {len(seeds)} seeds: some repeat each other")
        if len(commits) > 1:
            remarks.append(f"{self.label}: made with {len(commits)} commits of the code")
        return remarks


@dataclass
class Table:
    """Comparable groups, of one data set and one model, the most accurate first."""

    data: DataSet
    model: str
    groups: list[Group]

    @property
    def title(self) -> str:
        """Model and data set."""
        return f"{self.model} on {self.data.title}"


def data_of(record: Record) -> DataSet:
    """Return what a run recorded of its data set; without a record, the paths identify it."""
    train, evaluation = (record.config[name]["path"] for name in ("train_dataset", "eval_dataset"))
    path = str(train) if train == evaluation else f"{train} and {evaluation}"
    data = record.environment.get("data")
    data = data if isinstance(data, dict) else {}
    train_images, eval_images, classes = (_count(data.get(key)) for key in ("train_images", "eval_images", "classes"))
    classes = classes or _count(record.config["model"]["num_classes"])
    if train_images is None or eval_images is None:
        return DataSet(None, None, classes, None, path)
    names = data.get("names")
    return DataSet(train_images, eval_images, classes, names and str(names), path)


def _count(value: Any) -> int | None:
    return value if is_count(value) else None


def tables(records: Iterable[Record]) -> list[Table]:
    """Return the finished runs in tables, one per data set and model, those of most runs first."""
    finished = [record for record in records if record.state is State.FINISHED]
    data = [data_of(record) for record in finished]
    members: dict[tuple, list[tuple[Record, DataSet]]] = {}
    for record, of_record in zip(finished, data, strict=True):
        key = (_identity(of_record, data), str(record.config["model"]["name"]))
        members.setdefault(key, []).append((record, of_record))
    made = [Table(inside[0][1], key[1], groups(record for record, _ in inside)) for key, inside in members.items()]
    return sorted(made, key=lambda table: (-sum(len(g.records) for g in table.groups), table.title))


def _identity(data: DataSet, all_data: Sequence[DataSet]) -> tuple:
    """Return what makes two data sets the same one, wherever they are.

    Some storages do not know the class names: if only one set with these counts has names, theirs are taken to be it.
    """
    if data.train_images is None:
        return (data.path, data.classes)
    counts = (data.train_images, data.eval_images, data.classes)
    names = {d.names for d in all_data if d.names and (d.train_images, d.eval_images, d.classes) == counts}
    return (*counts, data.names or (names.pop() if len(names) == 1 else None))


def same_data(records: Sequence[Record]) -> bool:
    """Whether all runs saw the same data set."""
    data = [data_of(record) for record in records]
    return len({_identity(one, data) for one in data}) == 1


def groups(records: Iterable[Record]) -> list[Group]:
    """Group runs of one data set and model, the highest mean top-1 first."""
    found: dict[str, Group] = {}
    for record in records:
        shared = (record.recipe, str(durations(record.config)[0]), record.hardware, settings(record.config))
        key = json.dumps(shared, sort_keys=True, default=str)
        found.setdefault(key, Group(*shared, [])).records.append(record)
    result = list(found.values())
    for group in result:
        alike = [other for other in result if (other.recipe, other.length) == (group.recipe, group.length)]
        group.differs = _difference(group, alike)
    counts = Counter(group.label for group in result)
    seen: Counter[str] = Counter()
    for group in result:  # labels may be equal after shortening
        if counts[label := group.label] > 1:
            seen[label] += 1
            group.differs += f" ({seen[label]})"
    return sorted(result, key=lambda group: (-group.figure("top1").mean, group.label))  # type: ignore[union-attr]


def _difference(group: Group, alike: list[Group]) -> str:
    """Return this group's values of the settings that differ among the groups of a recipe and length."""
    every = [other.settings | {"hardware": other.hardware} for other in alike]
    mine = group.settings | {"hardware": group.hardware}
    keys = sorted({key for one in every for key in one if any(key not in o or o[key] != one[key] for o in every)})
    shown = [f"{key}={mine[key]}" if key in mine else f"no {key}" for key in keys]
    return ", ".join(shown[:MOST_KEYS]) + (f" and {len(shown) - MOST_KEYS} more" if len(shown) > MOST_KEYS else "")


@dataclass(frozen=True)
class Curve:
    """A figure over steps or seconds; every array is [points]."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray | None  # with ddof=1; None for one run

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lower and upper edge, [points] each."""
        if self.sd is None:
            return None
        return self.mean - SIGMAS * self.sd, self.mean + SIGMAS * self.sd


def over_steps(group: Group, column: str) -> Curve | None:
    """Return a column at the steps at which every run was evaluated; None without any."""
    runs = _pairs(group, "step", column)
    if not runs:
        return None
    steps = reduce(np.intersect1d, (x for x, _ in runs))
    return _curve(steps, [y[np.searchsorted(x, steps)] for x, y in runs]) if len(steps) else None


def over_time(group: Group, column: str) -> Curve | None:
    """Return a column over the seconds of training, interpolated to times that every run has reached."""
    runs = _pairs(group, "train_seconds", column)
    if not runs:
        return None
    first, last = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    if last < first:
        return None
    times = np.linspace(first, last, POINTS if last > first else 1)
    return _curve(times, [np.interp(times, x, y) for x, y in runs])


def seconds_to(record: Record, target: float) -> float | None:
    """Return the seconds of training until an evaluation's top-1 reached the target; None if none did."""
    reached = np.flatnonzero(record.column("top1") >= target)
    return float(record.column("train_seconds")[reached[0]]) if len(reached) else None


def _pairs(group: Group, x: str, y: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return both columns of every run that has them, without empty cells, by rising x."""
    pairs = []
    for record in group.records:
        xs, ys = record.column(x).astype(np.float64), record.column(y).astype(np.float64)
        if len(xs) == len(ys) and (known := np.isfinite(xs) & np.isfinite(ys)).any():
            xs, first = np.unique(xs[known], return_index=True)
            pairs.append((xs, ys[known][first]))
    return pairs


def _curve(x: np.ndarray, runs: list[np.ndarray]) -> Curve:
    values = np.stack(runs)
    sd = values.std(axis=0, ddof=1) if len(runs) > 1 else None
    return Curve(x, values.mean(axis=0), sd)
