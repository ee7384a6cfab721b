"""Compare two groups of runs, with 95 % confidence intervals.

    python -m tools.compare mild baseline                     # all finished runs of two recipes in runs/
    python -m tools.compare runs/a,runs/b,runs/c other/runs   # single runs, separated by commas; all runs of a folder
    python -m tools.compare mild baseline --target 97         # and the time until top-1 reached 97 %

A side is runs that differ in nothing but their seed. Differences of means are printed with their 95 % interval (that of
Welch: the sides may vary differently), which takes two runs on each side. What was trained differently is listed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import command
from common.errors import ConfigError, DataError, UserError
from common.suggest import did_you_mean, listing
from tools.records import Group, Record, Spread, State, changes, read_run, read_runs, seconds_to, spread
from tools.records.groups import data_of, groups, same_data
from tools.records.reading import FILES
from tools.records.trust import real

LEVEL = 0.95
FIGURES = (("top1", "top-1, %", 1.0, 2), ("top5", "top-5, %", 1.0, 2), ("train_seconds", "training, min", 60.0, 2))
ACCURACIES = ("top1", "top5")


@dataclass(frozen=True)
class Difference:
    """The mean of A minus that of B, and its 95 % interval; None where a side has one run."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval is there, has a width and leaves out 0."""
        return self.has_width and not self.interval[0] <= 0 <= self.interval[1]  # type: ignore[index]

    @property
    def has_width(self) -> bool:
        """Whether the runs varied: an interval without a width says that they are too few, not that it is sure."""
        return self.interval is not None and self.interval[0] < self.interval[1]


def difference(a: Spread, b: Spread, step: float = 0.0) -> Difference:
    """A minus B with Welch's interval: each side has its own variance, the degrees of freedom are Satterthwaite's.

    Args:
        a, b: the sides.
        step: the smallest by which the figure can change: runs that agree may differ by less, so that no variance is
            taken for smaller than that of rounding to it, step^2 / 12. (Not for the binomial one of the images: these
            are the same on both sides.)
    """
    gap = a.mean - b.mean
    if a.sd is None or b.sd is None:
        return Difference(gap, None)
    parts = [max(side.sd or 0.0, step / math.sqrt(12)) ** 2 / side.n for side in (a, b)]
    if not sum(parts):
        return Difference(gap, (gap, gap))
    from scipy.stats import t

    weights = [part / sum(parts) for part in parts]
    freedom = 1 / sum(weight**2 / (side.n - 1) for weight, side in zip(weights, (a, b), strict=True))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(parts))
    return Difference(gap, (gap - half, gap + half))


def find(text: str, places: Sequence[str]) -> list[Record]:
    """The runs that one side names: folders of runs, names of runs, or a recipe, separated by commas.

    Raises:
        UserError: there is none of that name, or only a link that leads out of `places`.
    """
    found: list[Record] = []
    for name in filter(None, text.split(",")):
        folders = [Path(name), *(Path(place) / name for place in places)]
        folder = next((folder for folder in folders if any((folder / file).exists() for file in FILES)), None)
        if folder is not None:
            inside = [place for place in places if folder.resolve().is_relative_to(Path(place).resolve())]
            if folder != Path(name) and not inside:
                raise UserError(
                    f"{folder}: leads out of {', '.join(places)}; name the folder itself: {folder.resolve()}"
                )
            found.append(read_run(real(folder)))
        elif Path(name).is_dir():
            found += read_runs([name])
        else:
            found += of_recipe(name, places)
    if not found:
        raise UserError(f"{text!r}: names no run; give a recipe, or folders of runs separated by commas")
    return found


def of_recipe(name: str, places: Sequence[str]) -> list[Record]:
    """The runs of a recipe.

    Raises:
        UserError: there is none, or they are of several configurations.
    """
    records = read_runs(places)
    its = [record for record in records if record.recipe == name]
    if not its:
        known = sorted({record.recipe for record in records} | {record.name for record in records})
        raise UserError(
            f"{name}: neither a run nor a recipe of a run in {', '.join(places)}{did_you_mean(name, known)} "
            f"(there are {listing(known)}); --runs FOLDER looks elsewhere"
        )
    return its


def side(name: str, records: list[Record]) -> tuple[Group, list[str]]:
    """The runs of one side as a group, and what to say of those that are not in it.

    Raises:
        UserError: none has finished.
        ConfigError: they are not repetitions of each other.
    """
    finished = [record for record in records if record.state is State.FINISHED]
    said = [f"{name}: {record.name} is left out: {record.ended}" for record in records if record not in finished]
    if not finished:
        raise UserError("\n".join([*said, f"{name}: no finished run is left to compare"]))
    if not same_data(finished):
        raise DataError(f"{name}: its runs are of different data sets; name those that belong together")
    parts = groups(finished)
    hardware = {part.hardware for part in parts}
    if len(parts) > 1 and len(hardware) > 1 and all(part.settings == parts[0].settings for part in parts):
        said.append(f"{name}: made on {' and '.join(sorted(hardware))}: its times say little")
        parts[0].records = finished
        return parts[0], said
    if len(parts) > 1:
        which = "; ".join(f"{part.label}: {','.join(str(r.folder) for r in part.records)}" for part in parts)
        raise ConfigError(f"{name}: its runs are no repetitions of each other. Name the runs of one of these: {which}")
    return parts[0], said


def verdict(a: Group, b: Group, top1: Difference) -> str:
    """What the difference in top-1 says, in a sentence or two."""
    for name, group in (("A", a), ("B", b)):
        if len(group.records) < 2:
            more = f" Train it again: {again}" if (again := with_another_seed(group.records[0])) else ""
            return f"{name} has one run: nothing says how much of the difference is chance.{more}"
    if not top1.has_width:
        return "The runs on each side agree to the last digit: they do not tell how much of the difference is chance."
    if not top1.is_clear:
        return "The interval includes 0: these runs do not tell A and B apart. More runs narrow it."
    low, high = sorted(abs(end) for end in top1.interval or ())
    better = "A" if top1.mean > 0 else "B"
    return f"{better} is more accurate, by {low:.2f} to {high:.2f} points of top-1 (95 % interval)."


def with_another_seed(record: Record) -> str:
    """The command that repeats a run with the next seed; nothing where its command was not recorded."""
    words = str(record.environment.get("command", "")).split()
    kept, seed = [word for word in words if not word.startswith("seed=")], record.config["seed"]
    return " ".join([*kept, f"seed={seed + 1}"]) if kept and isinstance(seed, int) else ""


def rows(a: Group, b: Group, target: float | None) -> list[tuple[str, ...]]:
    """The table: a figure, A, B, A minus B."""
    from tools.report.words import with_spread

    table: list[tuple[str, ...]] = []
    for name, title, scale, digits in FIGURES:
        its, other = a.figure(name), b.figure(name)
        if its and other:
            cells = (with_spread(its, digits, scale), with_spread(other, digits, scale))
            step = step_of(a) if name in ACCURACIES else 0.0
            table.append((title, *cells, in_words(difference(its, other, step), digits, scale)))
    if target is not None:
        table.append((f"seconds to {target:g} %", *times_to(a, b, target)))
    return table


def step_of(group: Group) -> float:
    """How much one image of the evaluation set is of an accuracy, in per cent; 0 where their number is not known."""
    images = data_of(group.records[0]).eval_images
    return 100 / images if images else 0.0


def in_words(gap: Difference, digits: int, scale: float = 1.0) -> str:
    """A difference as it is printed: `+0.37 (+0.02 to +0.72)`."""
    if gap.interval is None:
        return f"{gap.mean / scale:+.{digits}f} (no interval)"
    low, high = (end / scale for end in gap.interval)
    return f"{gap.mean / scale:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def times_to(a: Group, b: Group, target: float) -> tuple[str, str, str]:
    """Seconds of training until top-1 reached the target, on both sides, and their difference."""
    from tools.report.words import with_spread

    cells, spreads = [], []
    for group in (a, b):
        times = [seconds_to(record, target) for record in group.records]
        reached = spread(times)
        missed = times.count(None)
        said = with_spread(reached, 1) if reached else "never"
        cells.append(said + (f" ({len(times) - missed} of {len(times)} runs)" if reached and missed else ""))
        spreads.append(reached if not missed else None)
    one, other = spreads
    return cells[0], cells[1], in_words(difference(one, other), 1) if one and other else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: for a target that cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in "AB":
        parser.add_argument(name, help="a recipe, a run, a folder of runs, or several separated by commas")
    parser.add_argument("--runs", action="append", metavar="FOLDER", help="where runs are (default: runs)")
    parser.add_argument("--target", type=float, metavar="TOP1", help="tell the seconds until this top-1, in per cent")
    given = parser.parse_args(argv)
    given.runs = given.runs or ["runs"]
    if given.target is not None and not 0 < given.target <= 100:
        raise ConfigError(f"--target {given.target:g}: is a top-1 in per cent, as in --target 97")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; 0."""
    given = parse(argv)
    sides, said = {}, []
    for name in "AB":
        sides[name], remarks = side(name, find(getattr(given, name), given.runs))
        said += remarks
    a, b = sides["A"], sides["B"]
    check_apart(a, b)
    for name, group in sides.items():
        runs = ", ".join(record.name for record in group.records)
        print(f"{name}: {group.recipe}, {group.length}, {group.hardware}, n = {len(group.records)}: {runs}")
    print_table(["", "A", "B", "A - B (95 % interval)"], rows(a, b, given.target))
    top1 = difference(a.figure("top1"), b.figure("top1"), step_of(a))  # type: ignore[arg-type]
    print(verdict(a, b, top1))
    if a.hardware != b.hardware:
        said.append("A and B ran on different hardware: their times do not compare.")
    said += [remark for group in (a, b) for remark in group.remarks]
    print("\n".join(said), end="\n" if said else "")
    found = changes(a.records[0].config, b.records[0].config)
    found.pop("seed", None)
    if found:
        print_table(["trained differently", "A", "B"], [(key, *map(_value, values)) for key, values in found.items()])
    else:
        print("A and B were trained alike.")
    return 0


def check_apart(a: Group, b: Group) -> None:
    """Refuse what has no answer.

    Raises:
        DataError: the sides were measured on different images.
        ConfigError: they share a run.
    """
    if shared := {r.folder.resolve() for r in a.records} & {r.folder.resolve() for r in b.records}:
        raise ConfigError(f"A and B share the run {sorted(shared)[0]}: give each run to one side")
    if not same_data([a.records[0], b.records[0]]):
        titles = [data_of(group.records[0]).title for group in (a, b)]
        raise DataError(f"A is of {titles[0]}, B of {titles[1]}: accuracies on different images do not compare")


def print_table(head: list[str], lines: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell, an empty line before and after."""
    table = [tuple(head), *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    print()
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def _value(its: Any) -> str:
    from tools.report.words import value

    return value(its)


def run(argv: Sequence[str] | None = None) -> int:
    """`main`, with a sentence in place of a traceback where the mistake is the user's."""
    return command.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
