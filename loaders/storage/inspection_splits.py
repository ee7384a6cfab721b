"""Splits of a data set: the jobs that check them, the results, and how these are printed."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from common.addresses import is_s3
from common.errors import DataError, counted, named
from common.store_faults import StoreOutOfReach
from loaders.archives.catalog import DataCopy
from loaders.archives.forms import ReadOptions
from loaders.archives.index_file import open_indexed
from loaders.images.decoding import unchecked
from loaders.storage.imagefolder import SPLITS, is_image, list_split, structure_faults
from loaders.storage.inspection_jobs import CatalogJob, FolderJob, Job, Looked, ShardJob
from loaders.storage.kinds import kind_at, kind_of
from loaders.storage.seek_file import FolderTables
from loaders.storage.streaming import check_index, read_classes, require_shards
from loaders.transport.remote import is_remote

IMAGES_PER_JOB = 64


class Split:
    """One split: its jobs, which cover every image once, their results per image, remarks and faults.

    `classes` are the class names by label, or None if not recorded; `name_of` names an image, given its index.
    """

    def __init__(
        self, name: str, jobs: Sequence[Job], images: int, classes: list[str] | None, name_of: Callable[[int], str]
    ) -> None:
        self.name, self.jobs, self.images = name, jobs, images
        self.classes, self.name_of = classes, name_of
        self.num_classes = len(classes) if classes else None
        self.per_class: list[int] = []  # images per class; empty if unknown
        self.stored = 0  # bytes of all files; 0 to sum up the images' own
        self.deep = 0  # gray images with more than 8 bits
        self.odd = Counter[tuple[str | None, str | None]]()  # as in Looked
        self.sizes: list[tuple[int, int]] = []  # width, height in pixels of the decoded images
        self.remarks: list[str] = []
        self.faults: list[str] = []
        self.is_sample = False  # whether the jobs cover only some of the images
        self.digests = np.zeros(images, np.uint64)
        self.bytes = np.zeros(images, np.int64)  # stays 0 where nothing could be read
        self.labels = np.full(images, -1)

    def add(self, job: Job, result: Looked) -> None:
        """Add the result of a job."""
        images = slice(job.start, job.start + len(result.bytes))
        self.digests[images], self.bytes[images], self.labels[images] = result.digests, result.bytes, result.labels
        self.sizes += [size for size in result.sizes if size != (0, 0)]
        self.faults += result.faults
        self.deep += result.deep
        self.odd += result.odd
        wrong = [label for label in result.labels if self.classes and label >= len(self.classes)]
        if self.classes and wrong and isinstance(job, ShardJob):
            labels = counted(len(wrong), f"label, {wrong[0]}, is", f"labels such as {wrong[0]} are")
            self.faults.append(
                f"{job.place()}: {labels} outside the classes (0 to {len(self.classes) - 1} in classes.json). "
                "Convert the data set again."
            )

    def finish(self) -> None:
        """Sum up the results when all jobs are done."""
        self.stored = self.stored or int(self.bytes.sum())
        self.faults.sort()
        if self.deep:
            self.remarks.append(
                f"{self.name}: {counted(self.deep, 'image is', 'images are')} gray with more than 8 bits per pixel; "
                "training clips values above 255 to white. Convert them to 8 bits."
            )
        if not (self.per_class or self.is_sample):
            known = self.labels[self.labels >= 0]
            self.per_class = np.bincount(known, minlength=len(self.classes or [])).tolist()
        self.num_classes = self.num_classes or len(self.per_class) or None
        read = self.digests[self.bytes > 0]
        if copies := len(read) - len(np.unique(read)):
            images = counted(copies, "image is a copy of another", "images are copies of others")
            self.remarks.append(f"{self.name}: {images} in it.")


def open_splits(path: str, local: str | None, options: ReadOptions | None = None) -> tuple[list[Split], list[str]]:
    """Open the splits of a data set, and list the faults that show without opening an image.

    `options` are for data sets in other forms than image folders and shards.

    Raises:
        DataError: shards in a store are given without a cache folder, the store cannot be reached, the shards exceed
            the cache folder's disk, or a data set in another form is damaged.
    """
    if not local or is_s3(path):
        if copy := open_indexed(path, options or ReadOptions(), in_stores_alone=True):
            return catalog_splits(copy), []
    if is_remote(path) and not local:
        require_shards(path)
        command = f"python -m tools.verify {shlex.quote(str(path))} /a/cache/folder"
        raise DataError(f"{path}: needs a cache folder: {command}")
    root = Path(path)
    if not is_remote(path) and not any(kind_of(kind_at(root, split)).is_streaming for split in SPLITS):
        splits, faults = open_folder(root)
        loose = {root / split.name: names for split in splits if (names := loose_images(root / split.name))}
        if not loose:
            return splits, faults
        return [], [
            f"{folder}: {counted(len(names), 'image lies', 'images lie')} directly in it, next to the class folders "
            f"({named(names)}). Move each into its class folder, or delete it."
            for folder, names in loose.items()
        ]
    splits, faults = open_shards(path, local or path)
    if splits and local and is_remote(path):
        _check_room(splits, Path(local))
    return splits, faults


def catalog_splits(copy: DataCopy) -> list[Split]:
    """Return the splits of a data set in another form (loaders.archives)."""
    splits = []
    for name, catalog in sorted(copy.splits.items()):
        starts = range(0, len(catalog), IMAGES_PER_JOB)
        jobs = [CatalogJob(start, catalog.take(slice(start, start + IMAGES_PER_JOB))) for start in starts]
        split = Split(name, jobs, len(catalog), copy.classes, catalog.name_of)
        split.per_class = np.bincount(catalog.labels, minlength=len(copy.classes or [])).tolist()
        splits.append(split)
    splits[0].remarks = [f"{copy.headline}.", *copy.remarks]
    return splits


def open_folder(root: Path) -> tuple[list[Split], list[str]]:
    """Open the splits of an image folder, and list the faults that show without opening an image."""
    present = tuple(split for split in SPLITS if (root / split).is_dir())
    faults = structure_faults(root, needed=present or SPLITS)
    if faults:
        return [], faults  # quick to fix, whereas checking all images may take an hour
    return [_folder_split(root / split) for split in present], structure_faults(root)


def open_shards(remote: str, local: str) -> tuple[list[Split], list[str]]:
    """Open the splits of a data set in MDS shards, and list the faults of their indexes.

    Raises:
        StoreOutOfReach: no file of the store can be read.
    """
    splits, faults = [], []
    for name in SPLITS:
        try:
            splits.append(_shard_split(remote, local, name))
        except StoreOutOfReach:
            raise
        except DataError as error:
            faults.append(str(error))
    return splits, faults


def loose_images(folder: Path) -> list[str]:
    """Return the sorted names of the images directly in a split's folder."""
    return sorted(name for name in os.listdir(folder) if is_image(name) and (folder / name).is_file())


def _folder_split(folder: Path) -> Split:
    classes, per_class, remarks, fault = list_split(folder)
    names: list[str] = []
    jobs: list[FolderJob] = []
    for label, (name, files) in enumerate(zip(classes, per_class, strict=True)):
        for start in range(0, len(files), IMAGES_PER_JOB):
            chunk = files[start : start + IMAGES_PER_JOB]
            jobs.append(FolderJob(len(names) + start, folder / name, chunk, label))
        names += [f"{name}/{file}" for file in files]
    split = Split(folder.name, jobs, len(names), classes, lambda index: str(folder / names[index]))
    split.per_class = list(map(len, per_class))
    tables = FolderTables(folder, len(names), lambda index: os.fsencode(names[index]))
    split.remarks, split.faults = [*remarks, *filter(None, [tables.remark(len(names))])], [fault] if fault else []
    return split


def _shard_split(remote: str, local: str, name: str) -> Split:
    entries = check_index(remote, local, name)[1]["shards"]
    counts = [entry["samples"] for entry in entries]
    starts = np.cumsum([0, *counts])
    jobs = [ShardJob(int(start), remote, local, name, entry) for start, entry in zip(starts, entries, strict=False)]

    def name_of(index: int) -> str:
        shard = int(np.searchsorted(starts, index, side="right")) - 1
        return f"{jobs[shard].place()}, sample {index - starts[shard]}"

    split = Split(name, jobs, sum(counts), read_classes(remote), name_of)
    split.stored = sum(job.stored["bytes"] for job in jobs)
    return split


def _check_room(splits: list[Split], local: Path) -> None:
    """Check that the cache folder's disk has room for the shards that are still to be downloaded."""
    jobs: list[Any] = [job for split in splits for job in split.jobs]
    wanted = sum(job.stored["bytes"] for job in jobs if not (local / job.split / job.stored["basename"]).is_file())
    local.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(local).free
    if wanted > free:
        raise DataError(
            f"{local}: {wanted / 1e9:,.1f} GB of shards must be downloaded, but only {free / 1e9:,.1f} GB are free. "
            "Choose a cache folder on a larger disk."
        )


def print_faults(console: Console, path: str, faults: Sequence[str], most: int | None = None) -> None:
    """Print the faults of a data set: at most `most` of them, if given."""
    console.print(f"\n{path}: {counted(len(faults), 'fault', 'faults')}", style="bold red")
    for fault in faults[:most]:
        console.print(f"- {fault}")
    if most is not None and len(faults) > most:
        console.print(f"and {len(faults) - most} more.")


def show_summary(console: Console, path: str, splits: Sequence[Split], remarks: Sequence[str]) -> None:
    """Print the table, the remarks, and what this machine cannot check."""
    console.print(summary_table(path, splits))
    for remark in filter(None, [*remarks, unchecked()]):
        console.print(remark, style="dim")


def summary_table(path: str, splits: Sequence[Split]) -> Table:
    """Build a table of the classes, images, bytes and sizes of each split."""
    table = Table(title=f"Data set {path}", title_justify="left")
    for name in ("split", "classes", "images", "per class", "bytes", "pixels: min / median / max"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=not name.startswith("pixels"))
    for split in splits:
        ends = sorted({min(split.per_class), max(split.per_class)}) if split.per_class else ["-"]
        classes = "not recorded" if split.num_classes is None else f"{split.num_classes}"
        spread = " to ".join(map(str, ends))
        table.add_row(split.name, classes, f"{split.images:,}", spread, megabytes(split.stored), extent(split.sizes))
    return table


def megabytes(count: int) -> str:
    """Format a number of bytes in MB."""
    return f"{count / 1e6:,.2f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


def extent(sizes: Sequence[tuple[int, int]]) -> str:
    """Format the smallest, median and largest width and height."""
    if not sizes:
        return "-"
    low, middle, high = (np.percentile(np.array(sizes), share, axis=0).astype(int) for share in (0, 50, 100))
    return " / ".join(f"{width}x{height}" for width, height in (low, middle, high))
