"""Convert an image folder or MDS shards to MDS or FFCV's .beton.

Images are kept bit for bit, or resized. Repeat the command to continue after an interruption or a kill. The
output is deterministic.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial

from common import command
from common.addresses import without_credentials
from common.errors import ConfigError, DataError
from common.folders import LocalFolder
from common.terminal import console, positive
from loaders.archives.catalog import UNSPLIT
from loaders.archives.forms import add_options, read_options
from loaders.storage.kinds import KINDS
from tools.split import options as split

QUALITY = 90
SEEKABLE = (
    "add seek tables, for faster decoding: an entry per row of blocks, or every N blocks of 8 or 16 pixels too "
    "(8 is fastest; about 2%% larger)"
)
TARGETS = {kind.written_as: kind for kind in KINDS.values() if kind.written_as}

EXAMPLES = """examples:
  # ImageNet as it is, the original JPEGs kept bit for bit
  python -m tools.convert /data/imagenet /data/imagenet-mds
  # at most 500 pixels on the longer side, straight to S3
  python -m tools.convert /data/imagenet s3://bucket/imagenet-500 --max-size 500
  # other shards from shards, without the original folder
  python -m tools.convert s3://bucket/imagenet /data/small --local /ssd/cache --max-size 256
  # with seek tables, so that `decoder: native` starts decoding at the crop's box
  python -m tools.convert /data/imagenet /data/imagenet-mds --seekable 8
  # a folder of classes, split on the way; a table of paths and labels
  python -m tools.convert /data/photos /data/photos-mds --val 0.2
  python -m tools.convert /data/photos/table.csv /data/table-mds
  # train.beton and val.beton for FFCV
  python -m tools.convert /data/imagenet /data/imagenet-ffcv --to ffcv --max-size 500

Images of train/ are shuffled once, so that each shard mixes classes; shards from shards keep their order. Every
image is decoded on the way, to find faults. The column i is the image's index in the source: files sorted by class
and name. classes.json, next to the shards, lists the class names by label."""


def columns(word: str) -> int:
    """Parse the N of --seekable."""
    from loaders.images.native import MOST_EVERY

    if not word.isdecimal() or int(word) > MOST_EVERY:
        raise argparse.ArgumentTypeError(f"{word}: N must be from 0 to {MOST_EVERY}; write SRC DST --seekable N")
    return int(word)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("tools.convert", __doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add(
        "source",
        metavar="SRC",
        help="folder with train/CLASS/*.JPEG and val/..., or of MDS shards; or s3://bucket/folder",
    )
    add("destination", metavar="DST", help="folder, or s3://bucket/folder")
    add("--to", choices=TARGETS, default=next(iter(TARGETS)), help="what to write (default: %(default)s)")
    add("--max-size", type=positive, metavar="PIXELS", help="shrink larger images to this longer side")
    add("--quality", type=int, help=f"JPEG quality of resized images (default: {QUALITY})")
    add("--shard-mb", type=float, default=64, metavar="MB", help="size of a shard in MiB (default: 64)")
    add("--compression", metavar="KIND", help="of shards: zstd, zstd:7, gz, ... (default: none; JPEGs hardly shrink)")
    add("--seekable", type=columns, nargs="?", const=0, metavar="N", help=SEEKABLE)
    add("--hash", default="sha1", dest="hash_name", metavar="KIND", help="recorded for each shard (default: sha1)")
    add("--local", metavar="FOLDER", help="cache for shards, needed if SRC is in a store")
    add("--skip-unreadable", action="store_true", help="leave unreadable images out, listed in DST/skipped.txt")
    add("--no-decode", action="store_true", help="trust the images: read headers only, except of those to resize")
    cores = len(os.sched_getaffinity(0))
    add("--workers", type=positive, default=cores, help="processes (default: one per core, here %(default)s)")
    add_options(parser)
    group = parser.add_argument_group("some of the images, and splits")
    split.add_options(group, val=None)
    group.add_argument("--classes", metavar="FILE", help="convert these classes alone: one per line, or JSON")
    return parser.parse_args(argv)


def check(given: argparse.Namespace) -> None:
    """Check the options; ConfigError with a sentence for each fault."""
    from streaming.base.compression import is_compression

    from loaders.transport.checksums import HASHES

    problems = []
    if given.quality is not None and given.max_size is None:
        problems.append(f"--quality {given.quality}: images stay as they are without --max-size PIXELS; add that.")
    elif given.quality is not None and not 1 <= given.quality <= 100:
        problems.append(f"--quality {given.quality}: must be from 1 to 100.")
    if not 0 < given.shard_mb <= 1024:
        problems.append(f"--shard-mb {given.shard_mb:g}: must be more than 0, and at most 1024.")
    if given.compression and not is_compression(given.compression):
        problems.append(
            f"--compression {given.compression}: no such kind. Choose from zstd, br, bz2, gz (each with an optional "
            "level, as in zstd:7) and snappy."
        )
    if given.hash_name not in HASHES:
        problems.append(f"--hash {given.hash_name}: no such kind. Choose from {', '.join(HASHES)}.")
    if given.seekable is not None and not TARGETS[given.to].is_streaming:
        problems.append(f"--seekable: only MDS shards hold seek tables; leave it out, or leave out --to {given.to}.")
    if given.val is None and (given.exact or given.seed is not None):
        problems.append("--seed and --exact say how --val splits; add --val 0.2, or leave them out.")
    if problems:
        raise ConfigError(*problems)


def convert(argv: Sequence[str]) -> int:
    """Convert and print the table; return 0."""
    given, out = parse(argv), console()
    check(given)
    from loaders.images import native
    from loaders.images.decoding import unchecked
    from loaders.storage.mds_writer import ShardFormat
    from tools.convert import subsets, to_beton
    from tools.convert.plan import ImageOptions, plan_split
    from tools.convert.sources import open_sources
    from tools.convert.to_mds import Conversion, check_unused, open_destination, result_table

    destination = open_destination(given.destination)
    if given.seekable is not None and (fault := native.no_seek_tables()):
        raise DataError(f"--seekable: {fault}")
    to_shards = TARGETS[given.to].is_streaming
    if not (to_shards or isinstance(destination, LocalFolder)):
        raise DataError(f"{given.destination}: {given.to} is read only from local files. Name a local folder.")
    destination.names()  # a mistyped bucket shows here, before the source is read
    out.print(f"Looking through {given.source}")
    sources, classes, headline = open_sources(given.source, given.local, read_options(given))
    if headline:
        out.print(headline)
    again = ["python", "-m", "tools.convert", *argv]
    if given.classes:
        sources, classes = subsets.with_classes(sources, classes, given.classes, given.source)
    rule = None if given.val is None else split.rule(given)
    if rule and "val" in sources:
        raise DataError(f"--val {rule.val:g}: {given.source} has a val/ already. Leave --val out.")
    if rule:
        check_unused(destination, ["train", "val"], classes)
        sources = subsets.split(sources, classes, rule, given.skip_unreadable, given.source, out, given.workers)
    if UNSPLIT in sources:
        raise DataError(f"{given.source}: has no train/ and val/. To split it: {shlex.join([*again, '--val', '0.2'])}")
    images = ImageOptions(given.max_size, given.quality or QUALITY, not given.no_decode)
    shards = ShardFormat(given.compression, given.hash_name, int(given.shard_mb * 2**20), given.seekable)
    plans = [plan_split(name, source, images, shards) for name, source in sources.items()]
    words = without_credentials(shlex.join(again))
    conversion = Conversion(destination, plans, classes, rule, images, shards, given.skip_unreadable, out, words)
    rows = conversion.run(given.workers) if to_shards else to_beton.convert(conversion, given.workers)
    cores = min(given.workers, len(os.sched_getaffinity(0)))
    out.print(result_table(given.destination, rows, cores))
    if skipped := sum(len(plan.order) for plan in plans) - sum(row.images for row in rows):
        out.print(f"{skipped} unreadable images are left out: {destination}/skipped.txt lists them.")
    look = shlex.join(["python", "-m", "tools.verify", given.destination])
    trusted = f"The images were not decoded (--no-decode), only their headers read. To check them: {look}"
    unseen = trusted if given.no_decode else unchecked()
    for remark in filter(None, [*(remark for source in sources.values() for remark in source.remarks), unseen]):
        out.print(remark)
    if classes is None:
        out.print(f"{given.source} has no classes.json, so that the labels have no names here either.")
    return 0


main = partial(command.run, convert, stopped="stopped; repeat the command to continue")

if __name__ == "__main__":
    sys.exit(main())
