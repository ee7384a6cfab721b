"""`python data.py PATH [LOCAL]`: look for faults, summarize the data set, and measure how fast it loads."""

import argparse
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from common import terminal
from common.addresses import is_in_place, is_s3
from common.errors import DataError
from common.terminal import check_writable, not_negative, positive
from loaders.archives.catalog import DataCopy
from loaders.archives.index_file import open_indexed
from loaders.class_names import all_shown
from loaders.dataset import ImageDataset
from loaders.images import decoders
from loaders.images.sheet import INK, Section, Tile, draw_sheet
from loaders.sampler import endless
from loaders.storage.archives import why_not
from loaders.storage.imagefolder import SPLITS
from loaders.storage.inspection_jobs import EMPTY, CatalogJob, FolderJob, ShardJob, look
from loaders.storage.inspection_splits import (
    Split,
    catalog_splits,
    open_folder,
    open_shards,
    print_faults,
    show_summary,
)
from loaders.storage.shard_index import files_of
from loaders.storage.streaming import require_shards
from loaders.storage.unfinished import refuse_unfinished
from loaders.transport.preloading.source_files import list_s3
from loaders.transport.remote import is_remote, join
from loaders.workers import default_num_workers

SHEET = Path("contact_sheet.png")
COLUMNS, ROWS, SIDE = 8, 3, 136  # of the sheet: tiles, and the side of a tile in pixels
SMALL = 5000  # images of a split up to which all are decoded
SAMPLE = 500  # images decoded of a larger split
SHARDS = 4  # shards downloaded of a larger split
_SEED = 0  # of the sample
MEASURED = 1.0  # seconds per split
FIRST_BATCHES = 3
MOST_FAULTS = 50
RESIZE_RATIO = 256 / 224  # short side to crop in the baseline recipe's evaluation

Batch = tuple[torch.Tensor, torch.Tensor]


def main(arguments: Sequence[str], build: Callable[..., Any]) -> int:
    """Check the data set named on the command line with `data.build_imagenet_dataspec`; return 1 if it has faults."""
    parser = argparse.ArgumentParser(
        prog="python data.py",
        description="Check a data set: list its faults, or show classes, sizes, batches, img/s and a contact sheet.",
        epilog="examples:\n  python data.py /data/imagenet\n  python data.py s3://bucket/imagenet /local/cache",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "path",
        help="folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG, of MDS shards, or archives (docs/archives.md)",
    )
    add("local", nargs="?", help="cache folder; only for MDS shards")
    add("--batch-size", type=positive, default=32, help="images per batch (default: 32)")
    add("--crop-size", type=positive, default=224, help="side of an image in pixels (default: 224)")
    add("--workers", type=not_negative, default=default_num_workers(), help="processes (default: %(default)s)")
    options, console = parser.parse_args(arguments), terminal.console()
    copy = open_indexed(options.path) if options.local is None or is_s3(options.path) else None
    if copy is None and options.local is None and is_remote(options.path):
        require_shards(options.path)
        raise DataError(f"{options.path}: needs a cache folder: python data.py {options.path} /a/cache/folder")
    refuse_unfinished(options.path)
    splits, faults = inspect(options.path, options.local, copy)
    if any(split.images for split in splits):
        show_summary(console, options.path, splits, [remark for split in splits for remark in split.remarks])
    if faults:
        print_faults(console, options.path, faults, MOST_FAULTS)
        return 1
    if copy and (reason := next(filter(None, (why_not(options.path, copy, split) for split in SPLITS)), None)):
        console.print(reason, highlight=False)
        return 0
    if options.local is None and is_remote(options.path):
        console.print(f"To see batches: python data.py {options.path} /a/cache/folder", highlight=False)
        return 0
    check_writable(SHEET)
    show_batches(console, options, build, is_streaming=options.local is not None and copy is None)
    return 0


def inspect(path: str, local: str | None, copy: DataCopy | None = None) -> tuple[list[Split], list[str]]:
    """Check a sample of a data set; return its splits and all faults.

    `local` is None for a folder of images; `copy` is a data set in another form.
    """
    splits, faults = ([], []) if copy else open_shards(path, local) if local else open_folder(Path(path))
    splits = catalog_splits(copy) if copy else splits
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for split in splits:
            sample(split)
            for job, result in zip(split.jobs, pool.map(look, split.jobs), strict=True):
                split.add(job, result)
            split.finish()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, start no more jobs
    return splits, faults + [fault for split in splits for fault in split.faults]


def sample(split: Split) -> None:
    """Reduce a large split's jobs to a sample of its images, with a remark.

    Faults that show without decoding are found in the whole split: empty files, missing or truncated shards.
    """
    if shards := [job for job in split.jobs if isinstance(job, ShardJob)]:
        _sample_shards(split, shards)
    elif split.images > SMALL:
        _sample_files(split, [job for job in split.jobs if not isinstance(job, ShardJob)])


def _sample_files(split: Split, jobs: Sequence[FolderJob | CatalogJob]) -> None:
    lengths = np.concatenate([job.lengths() for job in jobs])
    split.stored = int(lengths.clip(min=0).sum())
    split.faults += [f"{split.name_of(index)}: {EMPTY}" for index in np.flatnonzero(lengths == 0)]
    nonempty = np.flatnonzero(lengths)  # reading will report missing files
    chosen = np.random.default_rng(_SEED).choice(nonempty, min(SAMPLE, len(nonempty)), replace=False)
    starts = [job.start for job in jobs]
    split.jobs = [jobs[bisect_right(starts, index) - 1].only(int(index)) for index in np.sort(chosen)]
    split.remarks.append(f"{split.name}: {len(chosen)} of its {split.images} images were decoded.")
    split.is_sample = True


def _sample_shards(split: Split, jobs: list[ShardJob]) -> None:
    """Keep the first shards of a split; none if some are missing or damaged."""
    split.remarks.append(f"{split.name}: {len(jobs)} shards.")
    split.faults += _shard_faults(jobs)
    if not split.faults and len(jobs) > SHARDS:
        split.remarks.append(f"{split.name}: images of {SHARDS} shards were decoded.")
    split.jobs = [] if split.faults else jobs[:SHARDS]
    split.is_sample = len(split.jobs) < len(jobs)


def _shard_faults(jobs: list[ShardJob]) -> list[str]:
    """List shards that are missing or of the wrong length."""
    folder, in_place = join(jobs[0].remote, jobs[0].split), is_in_place(jobs[0].remote, jobs[0].local)
    if is_remote(folder) and not is_s3(folder):
        return []  # other stores cannot be listed; a missing shard is found when it is read
    if is_remote(folder):
        sizes = {file.name: file.size for file in list_s3(folder)}
    else:
        names = [info["basename"] for job in jobs for info in files_of(job.entry)]
        sizes = {name: path.stat().st_size for name in names if (path := Path(folder, name)).is_file()}
    faults = []
    for job in jobs:
        # Shards that are read in place may be compressed, uncompressed or both, as for training.
        files = [info for info in (files_of(job.entry) if in_place else [job.stored]) if info["basename"] in sizes]
        if not files:
            faults.append(f"{job.place()}: is missing, though index.json lists it. Copy or upload it again.")
        for info in files:
            if (size := sizes[info["basename"]]) != info["bytes"]:
                wrong = f"{size} bytes instead of {info['bytes']}"
                faults.append(f"{join(folder, info['basename'])}: is damaged ({wrong}). Copy or upload it again.")
    return faults


def show_batches(
    console: Console, options: argparse.Namespace, build: Callable[..., Any], *, is_streaming: bool
) -> None:
    """Load both splits as training would, print their batches and speed, and draw the contact sheet."""
    table = Table(title="First batches", title_justify="left")
    for name in ("split", "batch", "images", "memory format", "labels", "values"):
        table.add_column(name, no_wrap=name != "images")
    speeds, sections, decoder = [], [], "auto"
    for split in SPLITS:
        spec = build(
            data_path=options.path,
            is_streaming=is_streaming,
            batch_size=options.batch_size,
            local=options.local,
            is_train=split == "train",
            drop_last=False,
            resize_size=-1 if split == "train" else evaluation_resize(options.crop_size),
            crop_size=options.crop_size,
            num_workers=options.workers,
        )
        batches, speed = measure(spec.dataloader)
        decoder = spec.dataloader.dataset.pipeline.decoder
        for number, batch in enumerate(batches):
            table.add_row(split, str(number), *described(batch))
        speeds.append(f"{split} {speed:,.0f} img/s")
        sections.append(section(split, options.crop_size, batches[0], names_to_show(spec.dataloader.dataset)))
    console.print(table)
    console.print(
        f"Loader: {', '.join(speeds)} (batches of {options.batch_size}, {options.workers} workers, "
        f"crop {options.crop_size} px; start-up not counted)"
    )
    console.print(decoders.described(decoder), highlight=False)
    draw_sheet(sections, COLUMNS, SIDE).save(SHEET)
    console.print(f"Contact sheet: {SHEET.resolve()}", highlight=False)


def described(batch: Batch) -> tuple[str, str, str, str]:
    """Format a batch's shapes and types as table cells."""
    images, labels = batch
    kind = "channels_last" if images.is_contiguous(memory_format=torch.channels_last) else "contiguous"
    return (
        f"{list(images.shape)} {str(images.dtype).removeprefix('torch.')}",
        kind,
        f"{list(labels.shape)} {str(labels.dtype).removeprefix('torch.')}",
        f"{int(labels.min())} to {int(labels.max())}",
    )


def evaluation_resize(crop_size: int) -> int:
    """Short side in pixels before the central crop."""
    return round(crop_size * RESIZE_RATIO)


def names_to_show(dataset: ImageDataset) -> list[str] | None:
    """Return each class with its name; None if the data set does not know them."""
    return all_shown(dataset.classes, dataset.class_names or dataset.classes) if dataset.classes else None


def section(split: str, crop_size: int, batch: Batch, classes: Sequence[str] | None) -> Section:
    """Make a section of the contact sheet from a batch; classes without names are numbered."""

    def named(label: int) -> str:
        return classes[label] if classes and label < len(classes) else f"class {label}"

    shown = zip(batch[0][: COLUMNS * ROWS], batch[1].tolist(), strict=False)
    tiles = [Tile(image, [(named(label), INK)]) for image, label in shown]
    if split == "train":
        return Section("Training", f"random crop to {crop_size} px and flip", tiles)
    return Section("Evaluation", f"short side to {evaluation_resize(crop_size)} px, central {crop_size} px", tiles)


def measure(loader: Any) -> tuple[list[Batch], float]:
    """Load for about a second, over several epochs if one is short.

    Returns:
        The first batches, and the images per second after the workers have started.
    """
    warm_up, shown = min(2 * loader.num_workers, len(loader)), min(FIRST_BATCHES, len(loader))
    first: list[Batch] = []
    images, began = 0, time.perf_counter()
    for number, batch in enumerate(endless(loader)):
        if number < shown:
            first.append(batch)
        if number <= warm_up:
            began = time.perf_counter()
            continue
        images += len(batch[1])
        if time.perf_counter() - began > MEASURED and len(first) == shown:
            break
    return first, images / (time.perf_counter() - began)
