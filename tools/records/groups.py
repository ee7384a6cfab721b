"""Runs that repeat each other: of one data set, one model, one recipe and length, one configuration, one hardware."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.schema import MOST_WITHOUT_TOP5
from tools.records.configs import durations, settings
from tools.records.reading import Record, State
from tools.records.trust import is_count

IMAGENET = (1_281_167, 50_000, 1000)
MOST_KEYS = 4  # of a label


@dataclass(frozen=True)
class DataSet:
    """What images a run saw.

    Attributes:
        train_images, eval_images: how many; None in records that do not say.
        classes: how many.
        names: a hash of the classes' names; None where the data do not know them.
        place: the path, of records that do not say how many images.
    """

    train_images: int | None
    eval_images: int | None
    classes: int | None
    names: str | None = None
    place: str = ""

    @property
    def is_imagenet(self) -> bool:
        """Whether it has ImageNet-1k's numbers of images and classes."""
        return (self.train_images, self.eval_images, self.classes) == IMAGENET

    @property
    def has_top5(self) -> bool:
        """Whether top-5 says anything."""
        return self.classes is None or self.classes > MOST_WITHOUT_TOP5

    @property
    def title(self) -> str:
        """The data set in a few words."""
        if self.train_images is None:
            return f"{self.place or 'unknown data'} (the number of images was not recorded)"
        name = "ImageNet-1k" if self.is_imagenet else self.place or "data"
        return f"{name}: {self.train_images:,} images, {self.eval_images:,} to evaluate, {self.classes} classes"


@dataclass(frozen=True)
class Spread:
    """A figure over repeated runs: how many, their mean, and the standard deviation with ddof=1 (None for one run)."""

    n: int
    mean: float
    sd: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """The mean and spread of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(len(known), statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


@dataclass
class Group:
    """Finished runs that differ in nothing but their seed.

    Attributes:
        recipe, length, hardware: what they share, such as mild, 36ep, 8x NVIDIA A100-SXM4-40GB.
        settings: what they share of the configuration, dotted key -> value.
        records: the runs.
        differs: what tells the group from others of its recipe and length, as in `optimizer.lr=0.5`.
    """

    recipe: str
    length: str
    hardware: str
    settings: dict[str, Any]
    records: list[Record]
    differs: str = ""

    @property
    def label(self) -> str:
        """The group in a few words, unique in its table."""
        return f"{self.recipe}, {self.length}{f', {self.differs}' if self.differs else ''}"

    def figure(self, name: str) -> Spread | None:
        """A final figure over the runs: a column of metrics.csv, or total_seconds."""
        if name == "total_seconds":
            return spread(record.total_seconds for record in self.records)
        return spread(record.final(name) for record in self.records)

    @property
    def remarks(self) -> list[str]:
        """What to know before trusting the mean."""
        seeds = [str(record.config["seed"]) for record in self.records]
        commits = {str(record.environment.get("commit")) for record in self.records}
        said = []
        if len(set(seeds)) < len(seeds):
            said.append(f"{self.label}: {len(seeds)} runs, but not {len(seeds)} seeds: some repeat each other")
        if len(commits) > 1:
            said.append(f"{self.label}: made with {len(commits)} commits of the code")
        return said


@dataclass
class Table:
    """Groups that may be compared: of one data set and one model, the most accurate first."""

    data: DataSet
    model: str
    groups: list[Group] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Model and data set."""
        return f"{self.model} on {self.data.title}"


def data_of(record: Record) -> DataSet:
    """What a run says of its data; of one that says nothing, the paths stand for them."""
    train, evaluation = (record.config[name]["path"] for name in ("train_dataset", "eval_dataset"))
    place = str(train) if train == evaluation else f"{train} and {evaluation}"
    said = record.environment.get("data")
    said = said if isinstance(said, dict) else {}
    train_images, eval_images, classes = (_count(said.get(key)) for key in ("train_images", "eval_images", "classes"))
    classes = classes or _count(record.config["model"]["num_classes"])
    if train_images is None or eval_images is None:
        return DataSet(None, None, classes, None, place)
    names = said.get("names")
    return DataSet(train_images, eval_images, classes, names and str(names), place)


def _count(value: Any) -> int | None:
    return value if is_count(value) else None


def tables(records: Iterable[Record]) -> list[Table]:
    """The finished runs in tables, those of most runs first; runs of different data sets are never in one."""
    finished = [record for record in records if record.state is State.FINISHED]
    data = [data_of(record) for record in finished]
    kinds: dict[tuple, Table] = {}
    inside: dict[tuple, list[Record]] = {}
    for record, its in zip(finished, data, strict=True):
        model = str(record.config["model"]["name"])
        key = (_identity(its, data), model)
        kinds.setdefault(key, Table(its, model))
        inside.setdefault(key, []).append(record)
    for key, table in kinds.items():
        table.groups = groups(inside[key])
    return sorted(kinds.values(), key=lambda table: (-sum(len(g.records) for g in table.groups), table.title))


def _identity(data: DataSet, all_data: Sequence[DataSet]) -> tuple:
    """What makes two data sets the same one, wherever they lie.

    Some kinds of storage do not know the names of the classes: where there is only one set of that many images and
    classes with names, it is that.
    """
    if data.train_images is None:
        return (data.place, data.classes)
    counts = (data.train_images, data.eval_images, data.classes)
    names = {d.names for d in all_data if d.names and (d.train_images, d.eval_images, d.classes) == counts}
    return (*counts, data.names or (names.pop() if len(names) == 1 else None))


def same_data(records: Sequence[Record]) -> bool:
    """Whether runs saw one data set."""
    data = [data_of(record) for record in records]
    return len({_identity(its, data) for its in data}) == 1


def groups(records: Iterable[Record]) -> list[Group]:
    """Runs of one data set and model in groups, the highest mean top-1 first."""
    found: dict[str, Group] = {}
    for record in records:
        its = settings(record.config)
        recipe, length = record.recipe, str(durations(record.config)[0])
        key = json.dumps([recipe, length, record.hardware, its], sort_keys=True, default=str)
        found.setdefault(key, Group(recipe, length, record.hardware, its, [])).records.append(record)
    result = list(found.values())
    for group in result:
        alike = [other for other in result if (other.recipe, other.length) == (group.recipe, group.length)]
        group.differs = _difference(group, alike)
    _number_equal_labels(result)
    return sorted(result, key=lambda group: (-group.figure("top1").mean, group.label))  # type: ignore[union-attr]


def _difference(group: Group, alike: list[Group]) -> str:
    """The settings that are not the same in all groups of a recipe and length, as this one has them."""
    every = [other.settings | {"hardware": other.hardware} for other in alike]
    mine = group.settings | {"hardware": group.hardware}
    keys = sorted({key for its in every for key in its if any(key not in o or o[key] != its[key] for o in every)})
    said = [f"{key}={mine[key]}" if key in mine else f"no {key}" for key in keys]
    return ", ".join(said[:MOST_KEYS]) + (f" and {len(said) - MOST_KEYS} more" if len(said) > MOST_KEYS else "")


def _number_equal_labels(groups: list[Group]) -> None:
    """Labels that were cut short may be equal."""
    counts = Counter(group.label for group in groups)
    seen: Counter[str] = Counter()
    for group in groups:
        if counts[label := group.label] > 1:
            seen[label] += 1
            group.differs += f" ({seen[label]})"
