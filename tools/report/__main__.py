"""Write a report of runs: figures, intervals, costs, commands.

    python -m tools.report runs/                                  # report.html: one file, opens anywhere
    python -m tools.report runs/ /other/runs -o report.md         # Markdown, with images in report/
    python -m tools.report runs/mild-1 runs/mild-2 --price 0.97   # two runs, at $0.97 per hour

The report reads only what runs left behind. Runs of one configuration are averaged; runs of different data sets or
models are never in one table; unfinished and unreadable runs are listed, not dropped. docs/evidence.md explains it.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import command
from common.errors import ConfigError
from common.terminal import local_path


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for an impossible price or size."""
    parser = command.parser("tools.report", __doc__)
    add = parser.add_argument
    add("places", nargs="+", metavar="FOLDER", help="runs/, or folders of single runs")
    where = "report.html or report.md; may be given twice (default: report.html)"
    add("-o", "--output", action="append", type=local_path, metavar="FILE", help=where)
    add("--price", type=float, metavar="DOLLARS", help="per hour of a run, instead of the price list's")
    add("--spot", action="store_true", help="use the list's spot prices")
    add("--storage", type=float, metavar="GB", help="size of the disk that was rented for the data")
    add("--storage-price", type=float, metavar="DOLLARS", help="of that disk, per GB and month")
    given = parser.parse_args(argv)
    given.output = given.output or [Path("report.html")]
    problems = []
    for option in ("price", "storage", "storage_price"):
        value = getattr(given, option)
        if value is not None and not 0 <= value < math.inf:
            problems.append(f"--{option.replace('_', '-')} {value:g}: must be 0 or more")
    if (given.storage is None) != (given.storage_price is None):
        problems.append("--storage and --storage-price: give both, as in --storage 390 --storage-price 0.08")
    if problems:
        raise ConfigError(*problems)
    return given


def main(argv: Sequence[str]) -> int:
    """Read the runs and write the report; return 0."""
    given = parse(argv)
    from tools.records.cost import Prices
    from tools.records.reading import read_runs
    from tools.report import content, write

    for target in given.output:
        write.check(target)
    records = read_runs(given.places)
    prices = Prices(given.price, given.spot, given.storage or 0.0, given.storage_price or 0.0)
    page = content.page(records, prices, given.places, shlex.join(["python", "-m", "tools.report", *argv]))
    for target in given.output:
        write.write(page, target)
    print(page.counts)
    for section in page.sections:
        best = section.lines[0]
        print(f"{section.table.title}: best is {best['label']}, top-1 {best['top1']} % (n = {best['n']})")
    for part in page.left_out:
        print(f"in no table: {part.record.name}: {part.record.ended}")
    print(f"written: {', '.join(map(str, given.output))}")
    return 0


run = partial(command.run, main)

if __name__ == "__main__":
    sys.exit(run())
