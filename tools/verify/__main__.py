"""Read every image of a data set before training on it.

    python -m tools.verify /data/imagenet
    python -m tools.verify s3://bucket/imagenet /local/cache
    python -m tools.verify /data/imagenet --fold LOC_val_solution.csv

Decodes all images, checks the hashes of all shards and the labels, looks for images that train/ and val/ share, and
recognizes ImageNet. Faults are listed, and make the exit status 1. --fold first sorts the images that lie directly in
val/ into one folder per class: the mapping has a line per image, its name and its class, or its class alone in the
order of the sorted names (the development kit's ground truth, with meta.mat next to it).
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from common import command, terminal
from common.errors import DataError
from common.terminal import ImageMeter, positive
from loaders.archives.forms import add_options, read_options
from loaders.class_names import NOT_ALL
from loaders.storage.unfinished import refuse_unfinished
from loaders.transport.remote import is_remote


def main(argv: Sequence[str]) -> int:
    """Verify, sort or unsort a data set; return 1 if there are faults."""
    parser = command.parser("tools.verify", __doc__)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("path", help="folder of images, MDS shards or archives; or s3://bucket/folder")
    parser.add_argument("local", nargs="?", help="cache folder, for shards in a store")
    parser.add_argument("--workers", type=positive, default=cores, help="processes (default: %(default)s)")
    add_options(parser)
    sort = parser.add_mutually_exclusive_group()
    sort.add_argument("--fold", metavar="MAPPING", help="first sort a flat val/ into one folder per class")
    sort.add_argument("--unfold", action="store_true", help="only move back what --fold moved")
    given = parser.parse_args(argv)
    console = terminal.console()
    if (given.fold or given.unfold) and is_remote(given.path):
        raise DataError(f"{given.path}: images are sorted only in local folders.")
    if given.unfold:
        from tools.verify.folding import unfold

        console.print(f"{given.path}/val: moved {unfold(Path(given.path)):,} images back.")
        return 0
    if given.fold:
        from tools.verify.folding import LOG, fold

        if moved := fold(Path(given.path), Path(given.fold)):
            console.print(f"{given.path}/val: sorted {moved:,} images into folders, as {given.path}/{LOG} lists.")
            console.print(f"To undo: python -m tools.verify {shlex.quote(given.path)} --unfold")
        else:
            console.print(f"{given.path}/val: no images lie directly in it; nothing was moved.")
    refuse_unfinished(given.path)
    return _verify(console, given)


def _verify(console: Console, given: argparse.Namespace) -> int:
    """Check the data set, print the table and the faults, and return the exit status."""
    from loaders.storage.inspection_jobs import look
    from loaders.storage.inspection_splits import open_splits, print_faults, show_summary
    from tools.convert.crew import Crew, report
    from tools.verify import compare

    splits, faults = open_splits(given.path, given.local, read_options(given))
    began = time.monotonic()
    with Crew(given.workers) as crew:
        for split in splits:
            with ImageMeter(console, split.name, split.images) as meter:
                for (job, _), found in crew.run(look, ((job, report) for job in split.jobs), meter):
                    split.add(job, found)
                    meter.weigh(len(found.bytes), sum(found.bytes))
            split.finish()
    seconds, images = time.monotonic() - began, sum(split.images for split in splits)
    remarks = [remark for split in splits for remark in split.remarks]
    if len(splits) == 2:
        faults += compare.labels_apart(*splits) + compare.shared_images(*splits)
        if known := compare.compare_with_imagenet(*splits):  # says more than the remark of an archive's index
            remarks = [remark for remark in remarks if not remark.startswith(NOT_ALL)] + [known]
    remarks += filter(None, [compare.kind_of_copy(splits)])
    faults = [fault for split in splits for fault in split.faults] + faults
    if splits:
        pace = f"{images:,} images in {seconds:,.1f} s: {images / seconds:,.0f} img/s, {given.workers} processes."
        show_summary(console, given.path, splits, [*remarks, pace])
    if not faults:
        console.print(f"{given.path}: no faults.")
        return 0
    print_faults(console, given.path, faults)
    if any(" directly in it" in fault for fault in faults):
        sort = f"python -m tools.verify {shlex.quote(given.path)} --fold MAPPING"
        console.print(f"To sort them: {sort} (--help explains the mapping)")
    return 1


run = partial(command.run, main)

if __name__ == "__main__":
    sys.exit(run())
