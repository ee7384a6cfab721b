"""Copy a data set to a fast disk of this machine before training.

    python -m tools.preload /nfs/imagenet /local/imagenet
    python -m tools.preload s3://bucket/imagenet /local/imagenet --split train

Repeat the command to continue after an interruption. A complete copy is not made again.
"""

import sys
from collections.abc import Sequence
from functools import partial

from rich.table import Table

from common import command, terminal
from common.sizes import amount
from loaders.transport.preload import copy
from loaders.transport.preloading.copying import Copied

DATASETS = {"train": "train_dataset", "val": "eval_dataset"}  # each split's section of the configuration


def main(argv: Sequence[str]) -> int:
    """Copy, and print what was copied and how to train on it; return 0."""
    parser = command.parser("tools.preload", __doc__)
    parser.add_argument("source", help="a folder (images, MDS shards, .beton files, archives), or s3://bucket/folder")
    parser.add_argument("destination", help="the copy: a new folder on a local disk")
    alone = "copy this one alone; by default everything"
    parser.add_argument("--split", action="append", choices=tuple(DATASETS), help=alone)
    given = parser.parse_args(argv)
    copied = copy(given.source, given.destination, given.split)
    console = terminal.console()
    console.print(table(copied))
    if not copied.copied_files:
        console.print(f"{given.destination} was complete already.", markup=False)
    words = " ".join(f"{DATASETS[split]}.preload={given.destination}" for split in given.split or DATASETS)
    console.print(f"To train on it: {words}", markup=False)
    return 0


def table(copied: Copied) -> Table:
    """Build a table of the copy's size and of what was copied now."""
    table = Table("", "files", "bytes", "seconds", "MB/s")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("total", f"{copied.files:,}", amount(copied.bytes), "", "")
    speed = f"{copied.copied_bytes / 1e6 / copied.seconds:,.0f}" if copied.copied_files else "-"
    now = [f"{copied.copied_files:,}", amount(copied.copied_bytes), f"{copied.seconds:.1f}", speed]
    table.add_row("copied now", *now)
    return table


run = partial(command.run, main, stopped="stopped; repeat the command to continue")

if __name__ == "__main__":
    sys.exit(run())
