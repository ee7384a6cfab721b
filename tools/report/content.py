"""What a report says, put together once for all of its forms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from config.load import BASELINE, baseline_of
from config.read import Tree
from tools.records import (
    Group,
    Prices,
    Published,
    Record,
    State,
    Table,
    changes,
    data_of,
    for_group,
    read_published,
    spread,
    tables,
)
from tools.records.configs import completed
from tools.records.published import MODEL
from tools.report import words
from tools.report.charts import COLOURED, Chart, charts
from tools.report.evaluation import Evaluation, read_evaluation


@dataclass(frozen=True)
class Line:
    """A group in the leaderboard, every figure as it is printed."""

    number: int
    colour: int | None  # its place in the palette
    label: str
    hardware: str
    n: int
    top1: str
    top5: str
    minutes: str  # of training
    total: str  # minutes of everything
    speed: str  # samples per second of training
    cost: str
    published: str
    difference: str  # of the mean from it, or why there is none
    source: str


@dataclass(frozen=True)
class Part:
    """One run.

    Attributes:
        record: what it left.
        figures: how far it came, as it is printed.
        cost: dollars, or nothing.
        against: what its configuration is compared with.
        changes: key, value, the other's value.
        environment: key and value.
        evaluation: what a closer look found.
    """

    record: Record
    figures: str
    cost: str
    against: str = ""
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    environment: list[tuple[str, str]] = field(default_factory=list)
    evaluation: Evaluation | None = None

    @property
    def command(self) -> str:
        """What repeats it; nothing where that was not recorded."""
        return str(self.record.environment.get("command") or "")


@dataclass(frozen=True)
class Section:
    """A table of groups that may be compared, with its charts and its runs."""

    table: Table
    lines: list[Line]
    notes: list[str]
    charts: list[Chart]
    parts: list[Part]
    hollow: list[tuple[str, Published]]  # what its chart shows hollow, with its letter

    @property
    def rows(self) -> list[tuple[object, ...]]:
        """The leaderboard cell by cell, without colours, and without a top-5 that says nothing."""
        left_out = {"colour"} if self.table.data.has_top5 else {"colour", "top5"}
        return [tuple(its for key, its in vars(line).items() if key not in left_out) for line in self.lines]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    made: str
    places: list[str]
    command: str
    counts: str
    basis: str
    sections: list[Section]
    left_out: list[Part]  # runs that are in no table
    published: list[tuple[str, Published]]


def page(records: Sequence[Record], prices: Prices, places: Sequence[str], command: str) -> Page:
    """The report of some runs."""
    rows = read_published()
    shown = [row for row in rows if row.number("top1") is not None and row.number("minutes") is not None]
    letters = {id(row): words.letter(place) for place, row in enumerate(shown)}
    lettered = [(letters.get(id(row), ""), row) for row in rows]
    sections = [section(table, prices, lettered) for table in tables(records)]
    return Page(
        made=time.strftime("%Y-%m-%d %H:%M"),
        places=[str(place) for place in places],
        command=command,
        counts=counts(records),
        basis=prices.basis,
        sections=sections,
        left_out=[part(record, prices, None) for record in records if record.state is not State.FINISHED],
        published=lettered,
    )


def counts(records: Sequence[Record]) -> str:
    """How many runs there are and how they ended."""
    found = [(state.value, sum(record.state is state for record in records)) for state in State]
    return f"{_many(len(records), 'run')}: " + ", ".join(f"{count} {name}" for name, count in found if count)


def _many(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count:,} {thing}s"


def section(table: Table, prices: Prices, published: list[tuple[str, Published]]) -> Section:
    """One table: its groups, the charts, and every run in it."""
    is_comparable = table.data.is_imagenet and table.model == MODEL
    rows = [row for _, row in published] if is_comparable else []
    lines = [line(place, group, prices, rows) for place, group in enumerate(table.groups)]
    hollow = [(letter, row) for letter, row in published if letter and is_comparable]
    return Section(
        table=table,
        lines=lines,
        notes=notes(table, prices, is_comparable),
        charts=charts(table, prices, hollow),
        parts=[part(record, prices, table) for group in table.groups for record in group.records],
        hollow=hollow,
    )


def line(place: int, group: Group, prices: Prices, published: list[Published]) -> Line:
    """A group's row of the leaderboard."""
    reference = for_group(group, published)
    top1 = group.figure("top1")
    assert top1 is not None  # a finished run has one
    difference = ""
    if reference is not None:
        forbids = reference.differs_from(group)
        gap = top1.mean - (reference.number("top1") or 0)
        difference = f"but {', '.join(forbids)}" if forbids else f"here {gap:+.2f}"
    return Line(
        number=place + 1,
        colour=place if place < COLOURED else None,
        label=group.label,
        hardware=group.hardware,
        n=len(group.records),
        top1=words.with_spread(top1),
        top5=words.with_spread(group.figure("top5")),
        minutes=words.minutes(group.figure("train_seconds")),
        total=words.minutes(group.figure("total_seconds")),
        speed=words.with_spread(group.figure("samples_per_second"), 0),
        cost=words.with_spread(spread(prices.of(record).dollars for record in group.records)),
        published=reference.top1 if reference else "",
        difference=difference,
        source=reference.source if reference else "",
    )


def notes(table: Table, prices: Prices, is_comparable: bool) -> list[str]:
    """What to know under a leaderboard: what is missing and why, and what is odd."""
    said = []
    costs = [prices.of(record) for group in table.groups for record in group.records]
    said += [f"Cost: {why}." for why in dict.fromkeys(cost.why for cost in costs)]
    if not is_comparable:
        said.append(f"Published figures are of {MODEL} on ImageNet-1k (1,281,167 and 50,000 images): not comparable.")
    if all(len(group.records) == 1 for group in table.groups):
        said.append("One run each: nothing here says how much a figure varies from seed to seed.")
    if len(table.groups) > COLOURED:
        said.append(f"The charts colour and number the first {COLOURED} groups; the others are grey.")
    if any(group.settings["model.loss_name"] == "binary_cross_entropy" for group in table.groups):
        said.append(
            "Training loss is BCE, summed over classes, where model.loss_name=binary_cross_entropy; "
            "validation loss is cross entropy in every run."
        )
    for group in table.groups:
        said += [f"{remark}." for remark in group.remarks]
        said += [f"{record.name}: {remark}." for record in group.records for remark in record.remarks]
    return said


def part(record: Record, prices: Prices, table: Table | None) -> Part:
    """One run; one in no table is compared with the published baseline."""
    cost = prices.of(record)
    accuracies = _ACCURACIES if not record.config or data_of(record).has_top5 else _ACCURACIES[:1]
    reached = [
        f"{name} {words.number(value)} %" for key, name in accuracies if (value := record.final(key)) is not None
    ]
    if record.total_seconds is not None:
        reached.append(f"{record.total_seconds / 60:.1f} min")
    dollars = f"${cost.dollars:,.2f}" if cost.dollars is not None else ""
    against, base = baseline_for(record, table)
    return Part(
        record=record,
        figures=", ".join(reached) or "no evaluation",
        cost=dollars,
        against=against,
        changes=in_words(changes(record.config, base)) if record.config else [],
        environment=environment(record),
        evaluation=read_evaluation(record.folder),
    )


def in_words(found: dict[str, tuple[Any, Any]]) -> list[tuple[str, str, str]]:
    """Differences as they are printed."""
    return [(key, words.value(its), words.value(other)) for key, (its, other) in found.items()]


_ACCURACIES = (("top1", "top-1"), ("top5", "top-5"))


def baseline_for(record: Record, table: Table | None) -> tuple[str, Tree]:
    """What a run's configuration is compared with.

    A baseline run of its table; else the baseline that it recorded at its start; else what that would be today.
    """
    runs = [one for group in table.groups for one in group.records if one.recipe == BASELINE] if table else []
    if runs and runs[0] is not record:
        return f"the run {runs[0].name}", runs[0].config
    if record.baseline:
        return str(record.environment.get("baseline") or f"its recipe {BASELINE}"), record.baseline
    against, tree = baseline_of(str(record.environment.get("command", "")).split())
    return f"{against}, as of today's checkout: the run recorded none", completed(tree)


def environment(record: Record) -> list[tuple[str, str]]:
    """Where and with what a run was made, flat."""
    flat = []
    for key, its in record.environment.items():
        if isinstance(its, dict):
            its = ", ".join(f"{name} {words.value(inner)}" for name, inner in its.items())
        flat.append((key.replace("_", " "), words.value(its)))
    return [(key, its) for key, its in flat if key != "command"]
