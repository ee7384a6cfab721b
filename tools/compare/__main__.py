"""Compare two groups of runs, with 95 % confidence intervals.

    python -m tools.compare mild baseline                     # all finished runs of two recipes in runs/
    python -m tools.compare runs/a,runs/b,runs/c other/runs   # single runs, separated by commas; all runs of a folder
    python -m tools.compare mild baseline --target 97         # and the time until top-1 reached 97 %

The runs of a side differ only in their seed. Differences of means are printed with their 95 % interval (Welch's: each
side has its own variance), which takes two runs on each side. Settings that were trained differently are listed.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import command
from common.errors import ConfigError, DataError, UserError
from common.suggest import did_you_mean, listing
from tools.records.configs import changes
from tools.records.groups import Group, Spread, data_of, groups, same_data, seconds_to, spread
from tools.records.reading import FILES, Record, State, read_run, read_runs
from tools.records.trust import real
from tools.report.words import value, with_spread
from training.earlier_run import ACCURACIES

LEVEL = 0.95
FIGURES = {name: (f"{text}, %", 1.0) for name, text in ACCURACIES.items()} | {"train_seconds": ("training, min", 60.0)}


@dataclass(frozen=True)
class Difference:
    """The mean of A minus that of B, and its 95 % interval; None if a side has one run."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval exists, has a width and excludes 0."""
        return self.has_width and not self.interval[0] <= 0 <= self.interval[1]  # type: ignore[index]

    @property
    def has_width(self) -> bool:
        """Whether the runs varied: an interval without a width means too few runs, not certainty."""
        return self.interval is not None and self.interval[0] < self.interval[1]

    def text(self, digits: int, scale: float = 1.0) -> str:
        """Return the difference as it is printed: `+0.37 (+0.02 to +0.72)`."""
        if self.interval is None:
            return f"{self.mean / scale:+.{digits}f} (no interval)"
        low, high = (end / scale for end in self.interval)
        return f"{self.mean / scale:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def difference(a: Spread, b: Spread, step: float = 0.0) -> Difference:
    """Return A minus B with Welch's interval and Satterthwaite's degrees of freedom.

    `step` is the smallest possible change of the figure. Runs that agree may still differ by less, so that no variance
    is taken as smaller than that of rounding to it, step^2 / 12. (Not the images' binomial variance: both sides saw the
    same images.)
    """
    gap = a.mean - b.mean
    if a.sd is None or b.sd is None:
        return Difference(gap, None)
    errors = [max(side.sd or 0.0, step / math.sqrt(12)) ** 2 / side.n for side in (a, b)]
    if not sum(errors):
        return Difference(gap, (gap, gap))
    from scipy.stats import t

    weights = [error / sum(errors) for error in errors]
    freedom = 1 / sum(weight**2 / (side.n - 1) for weight, side in zip(weights, (a, b), strict=True))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(errors))
    return Difference(gap, (gap - half, gap + half))


def find(text: str, places: Sequence[str]) -> list[Record]:
    """Return the runs of a side: folders, names of runs, or recipes, separated by commas; UserError without any."""
    records: list[Record] = []
    for name in filter(None, text.split(",")):
        folders = [Path(name), *(Path(place) / name for place in places)]
        folder = next((folder for folder in folders if any((folder / file).exists() for file in FILES)), None)
        if folder is not None:
            inside = any(folder.resolve().is_relative_to(Path(place).resolve()) for place in places)
            if folder != Path(name) and not inside:
                raise UserError(
                    f"{folder}: leads out of {', '.join(places)}; name the folder itself: {folder.resolve()}"
                )
            records.append(read_run(real(folder)))
        elif Path(name).is_dir():
            records += read_runs([name])
        else:
            runs = read_runs(places)
            if not (chosen := [record for record in runs if record.recipe == name]):
                known = sorted({record.recipe for record in runs} | {record.name for record in runs})
                raise UserError(
                    f"{name}: neither a run nor a recipe of a run in {', '.join(places)}{did_you_mean(name, known)} "
                    f"(there are {listing(known)}); --runs FOLDER looks elsewhere"
                )
            records += chosen
    if not records:
        raise UserError(f"{text!r}: names no run; give a recipe, or folders of runs separated by commas")
    return records


def side(name: str, records: list[Record]) -> tuple[Group, list[str]]:
    """Return a side's finished runs as a group, and remarks on the others; UserError unless they repeat each other."""
    finished = [record for record in records if record.state is State.FINISHED]
    remarks = [f"{name}: {record.name} is left out: {record.ended}" for record in records if record not in finished]
    if not finished:
        raise UserError("\n".join([*remarks, f"{name}: no finished run is left to compare"]))
    if not same_data(finished):
        raise DataError(f"{name}: its runs are of different data sets; name those that belong together")
    first, *others = groups(finished)
    hardware = sorted({group.hardware for group in (first, *others)})
    if len(hardware) > 1 and all(group.settings == first.settings for group in others):
        remarks.append(f"{name}: made on {' and '.join(hardware)}: its times are not comparable")
        first.records = finished
    elif others:
        which = "; ".join(f"{g.label}: {','.join(str(r.folder) for r in g.records)}" for g in (first, *others))
        raise ConfigError(f"{name}: its runs do not repeat each other. Name the runs of one of these: {which}")
    return first, remarks


def verdict(a: Group, b: Group, top1: Difference) -> str:
    """Return the meaning of the difference in top-1, in a sentence or two."""
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
    """Return the command that repeats a run with the next seed; empty if its command was not recorded."""
    words = str(record.environment.get("command", "")).split()
    kept, seed = [word for word in words if not word.startswith("seed=")], record.config["seed"]
    return " ".join([*kept, f"seed={seed + 1}"]) if kept and isinstance(seed, int) else ""


def rows(a: Group, b: Group, target: float | None) -> list[tuple[str, ...]]:
    """Return the rows of the table: a figure, A, B, A minus B."""
    table: list[tuple[str, ...]] = []
    for name, (title, scale) in FIGURES.items():
        one, other = a.figure(name), b.figure(name)
        if one and other:
            gap = difference(one, other, step_of(a) if name in ACCURACIES else 0.0)
            table.append((title, with_spread(one, 2, scale), with_spread(other, 2, scale), gap.text(2, scale)))
    if target is not None:
        table.append((f"seconds to {target:g} %", *times_to(a, b, target)))
    return table


def step_of(group: Group) -> float:
    """Return one image of the evaluation set as an accuracy, in percent; 0 if their number is unknown."""
    images = data_of(group.records[0]).eval_images
    return 100 / images if images else 0.0


def times_to(a: Group, b: Group, target: float) -> tuple[str, str, str]:
    """Return the seconds of training until top-1 reached the target, on both sides, and their difference."""
    cells, spreads = [], []
    for group in (a, b):
        times = [seconds_to(record, target) for record in group.records]
        reached, missed = spread(times), times.count(None)
        cell = with_spread(reached, 1) if reached else "never"
        cells.append(cell + (f" ({len(times) - missed} of {len(times)} runs)" if reached and missed else ""))
        spreads.append(None if missed else reached)
    one, other = spreads
    return cells[0], cells[1], difference(one, other).text(1) if one and other else ""


def main(argv: Sequence[str]) -> int:
    """Compare and print; return 0."""
    parser = command.parser("tools.compare", __doc__)
    for name in "AB":
        parser.add_argument(name, help="a recipe, a run, a folder of runs, or several separated by commas")
    parser.add_argument("--runs", action="append", metavar="FOLDER", help="where runs are (default: runs)")
    parser.add_argument("--target", type=float, metavar="TOP1", help="print the seconds to this top-1, in percent")
    given = parser.parse_args(argv)
    if given.target is not None and not 0 < given.target <= 100:
        raise ConfigError(f"--target {given.target:g}: is a top-1 in percent, as in --target 97")
    (a, remarks), (b, more) = (side(name, find(vars(given)[name], given.runs or ["runs"])) for name in "AB")
    if shared := {r.folder.resolve() for r in a.records} & {r.folder.resolve() for r in b.records}:
        raise ConfigError(f"A and B share the run {sorted(shared)[0]}: give each run to one side")
    if not same_data([a.records[0], b.records[0]]):
        titles = [data_of(group.records[0]).title for group in (a, b)]
        raise DataError(f"A is of {titles[0]}, B of {titles[1]}: accuracies on different images do not compare")
    for name, group in (("A", a), ("B", b)):
        runs = ", ".join(record.name for record in group.records)
        print(f"{name}: {group.recipe}, {group.length}, {group.hardware}, n = {len(group.records)}: {runs}")
    print_table(["", "A", "B", "A - B (95 % interval)"], rows(a, b, given.target))
    print(verdict(a, b, difference(a.figure("top1"), b.figure("top1"), step_of(a))))  # type: ignore[arg-type]
    remarks += more
    if a.hardware != b.hardware:
        remarks.append("A and B ran on different hardware: their times do not compare.")
    for remark in (*remarks, *a.remarks, *b.remarks):
        print(remark)
    differing = changes(a.records[0].config, b.records[0].config)
    differing.pop("seed", None)
    if differing:
        print_table(["trained differently", "A", "B"], [(key, *map(value, both)) for key, both in differing.items()])
    else:
        print("A and B were trained alike.")
    return 0


def print_table(head: list[str], lines: list[tuple[str, ...]]) -> None:
    """Print columns as wide as their widest cell, with an empty line before and after."""
    table = [tuple(head), *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    print()
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


run = partial(command.run, main)

if __name__ == "__main__":
    sys.exit(run())
