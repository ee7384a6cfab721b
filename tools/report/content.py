"""The content of a report, assembled once for all of its forms."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from config.load import BASELINE, baseline_of
from config.read import Tree
from config.schema import MIRRORED
from recipes.published import Published, read_published
from tools.records.configs import changes, completed
from tools.records.cost import Prices
from tools.records.groups import Group, Table, data_of, tables
from tools.records.measured import read_all, rows, title
from tools.records.published import FLIPPED, differs_from, for_group
from tools.records.reading import Record, State
from tools.report import words
from tools.report.charts import COLORED, Chart, charts
from tools.report.evaluation import Evaluation, read_evaluation
from training.earlier_run import ACCURACIES

LEADERBOARD = {
    "number": "",
    "label": "recipe and length",
    "hardware": "hardware",
    "n": "n",
    **{name: f"{title}, %" for name, title in ACCURACIES.items()},
    "minutes": "training, min",
    "total": "total, min",
    "speed": "img/s",
    "cost": "cost, $",
    "published": "published top-1, %",
    "difference": "here",
    "source": "source",
}
"""Columns of a table of groups, and their titles."""


@dataclass(frozen=True)
class Part:
    """One run."""

    record: Record
    figures: str  # its last ones, as they are printed
    cost: str  # dollars, or empty
    against: str = ""  # what its configuration is compared with
    changes: list[tuple[str, str, str]] = field(default_factory=list)  # key, value, the other's value
    environment: list[tuple[str, str]] = field(default_factory=list)
    evaluation: Evaluation | None = None

    @property
    def command(self) -> str:
        """Command that repeats the run; empty if it was not recorded."""
        return str(self.record.environment.get("command") or "")


@dataclass(frozen=True)
class Section:
    """A table of comparable groups, with its charts and its runs."""

    table: Table
    lines: list[dict[str, Any]]  # the LEADERBOARD's columns of each group, as they are printed
    notes: list[str]
    charts: list[Chart]
    parts: list[Part]
    hollow: list[tuple[str, Published]]  # letters and figures of the hollow marks in the charts

    @property
    def columns(self) -> dict[str, str]:
        """The LEADERBOARD, without top-5 if there are too few classes, and without figures that no run has."""
        left_out = {name for name in MIRRORED if not any(line[name] for line in self.lines)}
        left_out |= set() if self.table.data.has_top5 else {name for name in ACCURACIES if name.startswith("top5")}
        return {key: title for key, title in LEADERBOARD.items() if key not in left_out}

    @property
    def rows(self) -> list[list[object]]:
        """The cells of the columns."""
        return [[line[key] for key in self.columns] for line in self.lines]


@dataclass(frozen=True)
class Page:
    """A whole report."""

    made: str  # when
    places: list[str]  # the folders given
    command: str
    counts: str
    basis: str
    sections: list[Section]
    left_out: list[Part]  # runs that are in no table
    published: list[tuple[str, Published]]
    measured: list[tuple[str, list[tuple[str, ...]]]]  # speeds on GPUs: what a file's rows share, and the rows


def page(records: Sequence[Record], prices: Prices, places: Sequence[str], command: str) -> Page:
    """Return the report of some runs."""
    published = read_published()
    shown = [row for row in published if None not in (row.number("top1"), row.number("minutes"))]
    letters = {id(row): words.letter(place) for place, row in enumerate(shown)}
    lettered = [(letters.get(id(row), ""), row) for row in published]
    return Page(
        made=time.strftime("%Y-%m-%d %H:%M"),
        places=[str(place) for place in places],
        command=command,
        counts=counts(records),
        basis=prices.basis,
        sections=[section(table, prices, lettered) for table in tables(records)],
        left_out=[part(record, prices, None) for record in records if record.state is not State.FINISHED],
        published=lettered,
        measured=[(title(content), rows(content)) for content in read_all() if content["runs"]],
    )


def counts(records: Sequence[Record]) -> str:
    """Return the number of runs: the total, and by how they ended."""
    ended = [(state.value, sum(record.state is state for record in records)) for state in State]
    runs = "1 run" if len(records) == 1 else f"{len(records):,} runs"
    return f"{runs}: " + ", ".join(f"{count} {name}" for name, count in ended if count)


def section(table: Table, prices: Prices, published: list[tuple[str, Published]]) -> Section:
    """Return one table: its groups, the charts, and every run in it."""
    alike = [(letter, row) for letter, row in published if table.data.is_imagenet and row.model == table.model]
    hollow = [(letter, row) for letter, row in alike if letter]
    return Section(
        table=table,
        lines=[line(place, group, prices, [row for _, row in alike]) for place, group in enumerate(table.groups)],
        notes=notes(table, prices, bool(alike)),
        charts=charts(table, prices, hollow),
        parts=[part(record, prices, table) for group in table.groups for record in group.records],
        hollow=hollow,
    )


def line(place: int, group: Group, prices: Prices, published: list[Published]) -> dict[str, Any]:
    """Return a group's row of the LEADERBOARD, and `color`, its index in the palette or None."""
    reference = for_group(group, published)
    top1 = group.figure("top1")
    assert top1 is not None  # a finished run has one
    difference = ""
    if reference is not None:
        forbids = differs_from(reference, group)
        measured = group.figure("top1_tta") if FLIPPED in reference.protocol else None
        gap = (measured or top1).mean - (reference.number("top1") or 0)
        difference = f"but {', '.join(forbids)}" if forbids else f"here {gap:+.2f}"
    return {
        "number": place + 1,
        "color": place if place < COLORED else None,
        "label": group.label,
        "hardware": group.hardware,
        "n": len(group.records),
        **{name: words.with_spread(group.figure(name)) for name in ACCURACIES},
        "minutes": words.minutes(group.figure("train_seconds")),
        "total": words.minutes(group.figure("total_seconds")),
        "speed": words.with_spread(group.figure("samples_per_second"), 0),
        "cost": words.with_spread(prices.spread_of(group.records)),
        "published": reference.top1 if reference else "",
        "difference": difference,
        "source": reference.source if reference else "",
    }


def notes(table: Table, prices: Prices, is_comparable: bool) -> list[str]:
    """Return the notes under a table: the basis of costs, caveats, and remarks on damaged files."""
    costs = [prices.of(record) for group in table.groups for record in group.records]
    notes = [f"Cost: {why}." for why in dict.fromkeys(cost.why for cost in costs)]
    if not is_comparable:
        notes.append(
            "Published figures are of other models, or of ImageNet-1k (1,281,167 and 50,000 images): not comparable."
        )
    if all(len(group.records) == 1 for group in table.groups):
        notes.append("One run each: nothing here says how much a figure varies from seed to seed.")
    if len(table.groups) > COLORED:
        notes.append(f"The charts color and number the first {COLORED} groups; the others are gray.")
    if any(group.settings["model.loss_name"] == "binary_cross_entropy" for group in table.groups):
        notes.append(
            "Training loss is BCE, summed over classes, where model.loss_name=binary_cross_entropy; "
            "validation loss is cross entropy in every run."
        )
    for group in table.groups:
        notes += [f"{remark}." for remark in group.remarks]
        notes += [f"{record.name}: {remark}." for record in group.records for remark in record.remarks]
    return notes


def part(record: Record, prices: Prices, table: Table | None) -> Part:
    """Return one run; one in no table is compared with the published baseline."""
    cost = prices.of(record).dollars
    has_top5 = not record.config or data_of(record).has_top5
    reached = [
        f"{title} {words.number(value)} %"
        for key, title in ACCURACIES.items()
        if (not key.startswith("top5") or has_top5) and (value := record.final(key)) is not None
    ]
    if record.total_seconds is not None:
        reached.append(f"{record.total_seconds / 60:.1f} min")
    against, base = baseline_for(record, table)
    differing = changes(record.config, base) if record.config else {}
    return Part(
        record=record,
        figures=", ".join(reached) or "no evaluation",
        cost="" if cost is None else f"${cost:,.2f}",
        against=against,
        changes=[(key, words.value(one), words.value(other)) for key, (one, other) in differing.items()],
        environment=environment(record),
        evaluation=read_evaluation(record.folder),
    )


def baseline_for(record: Record, table: Table | None) -> tuple[str, Tree]:
    """Return the name and the configuration of the baseline of a run: its table's, its recorded one, or today's."""
    runs = [one for group in table.groups for one in group.records if one.recipe == BASELINE] if table else []
    if runs and runs[0] is not record:
        return f"the run {runs[0].name}", runs[0].config
    if record.baseline:
        return str(record.environment.get("baseline") or f"its recipe {BASELINE}"), record.baseline
    against, tree = baseline_of(str(record.environment.get("command", "")).split())
    return f"{against}, as of today's checkout: the run recorded none", completed(tree)


def environment(record: Record) -> list[tuple[str, str]]:
    """Return a run's environment, flattened, without its command."""
    flat = []
    for key, entry in record.environment.items():
        if isinstance(entry, dict):
            entry = ", ".join(f"{name} {words.value(inner)}" for name, inner in entry.items())
        if key != "command":
            flat.append((key.replace("_", " "), words.value(entry)))
    return flat
