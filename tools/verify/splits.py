"""A data set's splits: what there is to look into, and what was found in it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError, named
from loaders.inspection import SplitReport
from loaders.storage.imagefolder import (
    SPLITS,
    class_names,
    empty_classes,
    is_picture,
    list_class,
    listing_remarks,
    structure_faults,
)
from loaders.storage.streaming import check_index, read_classes
from loaders.transport.remote import StoreOutOfReach, is_remote
from tools.verify.jobs import FolderJob, Job, Looked, ShardJob

PICTURES_PER_JOB = 64


class Split:
    """One split: its jobs, and an item per picture of what they found.

    Args:
        name: `train` or `val`.
        jobs: together, every picture once.
        images: how many pictures.
        classes: the names of the classes by label, or None where they are not recorded.
        name_of: a picture's name for messages, from its place.
    """

    def __init__(
        self, name: str, jobs: list[Any], images: int, classes: list[str] | None, name_of: Callable[[int], str]
    ) -> None:
        self.jobs, self.classes, self.name_of = jobs, classes, name_of
        self.report = SplitReport(name, classes=len(classes) if classes else None, images=images)
        self.digests = np.zeros(images, np.uint64)
        self.bytes = np.zeros(images, np.int64)  # stays 0 where nothing could be read
        self.labels = np.full(images, -1)

    def add(self, job: Job, found: Looked) -> None:
        """Take in what a job found."""
        place = slice(job.start, job.start + len(found.bytes))
        self.digests[place], self.bytes[place], self.labels[place] = found.digests, found.bytes, found.labels
        self.report.sizes += [size for size in found.sizes if size != (0, 0)]
        self.report.faults += found.faults
        self.report.deep += found.deep
        known = len(self.classes) if self.classes else None
        wrong = [label for label in found.labels if known is not None and label >= known]
        if wrong and isinstance(job, ShardJob):
            self.report.faults.append(
                f"{job.place()}: {len(wrong)} labels such as {wrong[0]} are outside of the classes (0 to "
                f"{len(self.classes or []) - 1}, by classes.json). Convert the data set again."
            )

    def finish(self) -> None:
        """Sum up, when every job is done."""
        self.report.bytes = int(self.bytes.sum())
        self.report.faults.sort()
        self.report.remark_on_depth()
        there = self.labels[self.labels >= 0]
        self.report.per_class = np.bincount(there, minlength=len(self.classes or [])).tolist()
        self.report.classes = self.report.classes or len(self.report.per_class)
        read = self.digests[self.bytes > 0]
        if twice := len(read) - len(np.unique(read)):
            self.report.remarks.append(f"{self.report.split}: {twice} pictures are copies of others in it.")


def open_splits(path: str, local: str | None) -> tuple[list[Split], list[str]]:
    """The splits of a data set, and the faults that show before a picture is opened.

    Args:
        path: a folder, or a store's address.
        local: cache folder for a store's shards.

    Raises:
        DataError: a store without a cache folder, out of reach, or larger than the cache folder's disk.
    """
    if is_remote(path) and not local:
        command = f"python -m tools.verify {shlex.quote(str(path))} /a/cache/folder"
        raise DataError(f"{path}: needs a cache folder, too: {command}")
    root = Path(path)
    if is_remote(path) or any((root / split / "index.json").is_file() for split in SPLITS):
        return _open_shards(path, local or path)
    there = tuple(split for split in SPLITS if (root / split).is_dir())
    faults = structure_faults(root, needed=there or SPLITS)
    faults = faults or [fault for split in there for fault in _loose_pictures(root / split)]
    if faults:
        return [], faults  # mended in a minute; looking into all pictures may take an hour
    return [_open_folder(root / split) for split in there], structure_faults(root)


def loose_pictures(folder: Path) -> list[str]:
    """The names of the pictures that lie directly in a split's folder, sorted."""
    return sorted(name for name in os.listdir(folder) if is_picture(name) and (folder / name).is_file())


def _loose_pictures(folder: Path) -> list[str]:
    """A split where some pictures are in class folders and some are not, which nobody would read."""
    if not (loose := loose_pictures(folder)):
        return []
    return [
        f"{folder}: {len(loose)} pictures lie directly in it, beside the classes' folders ({named(loose)}). Move each "
        "into its class' folder, or delete them."
    ]


def _open_folder(folder: Path) -> Split:
    """A split of an image folder."""
    classes = class_names(folder)
    names: list[str] = []
    jobs: list[FolderJob] = []
    found = [list_class(folder / name) for name in classes]
    empty = []
    for label, (name, (files, _, _)) in enumerate(zip(classes, found, strict=True)):
        for start in range(0, len(files), PICTURES_PER_JOB):
            part = files[start : start + PICTURES_PER_JOB]
            jobs.append(FolderJob(len(names) + start, folder / name, part, label))
        names += [f"{name}/{file}" for file in files]
        empty += [] if files else [name]
    split = Split(folder.name, jobs, len(names), classes, lambda place: str(folder / names[place]))
    split.report.remarks += listing_remarks(folder, classes, found)
    if empty:
        split.report.faults.append(empty_classes(folder, empty))
    return split


def _open_shards(remote: str, local: str) -> tuple[list[Split], list[str]]:
    """The splits of a data set in MDS shards."""
    splits, faults, wanted = [], [], 0
    for name in SPLITS:
        try:
            entries = check_index(remote, local, name)["shards"]
            splits.append(_shard_split(remote, local, name, entries))
            stored = [entry.get("zip_data") or entry["raw_data"] for entry in entries]
            wanted += sum(info["bytes"] for info in stored if not Path(local, name, info["basename"]).is_file())
        except StoreOutOfReach:
            raise
        except DataError as error:
            faults.append(str(error))
    if splits and is_remote(remote):
        Path(local).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(local).free
        if wanted > free:
            raise DataError(
                f"{local}: {wanted / 1e9:,.1f} GB of shards are to be fetched, but {free / 1e9:,.1f} GB are free. "
                "Name a cache folder on a larger disk."
            )
    return splits, faults


def _shard_split(remote: str, local: str, name: str, entries: list[dict[str, Any]]) -> Split:
    """A split with these shards."""
    counts = [entry["samples"] for entry in entries]
    starts = np.cumsum([0, *counts])
    jobs = [ShardJob(int(starts[at]), remote, local, name, entry) for at, entry in enumerate(entries)]

    def name_of(place: int) -> str:
        shard = int(np.searchsorted(starts, place, side="right")) - 1
        return f"{jobs[shard].place()}, sample {place - starts[shard]}"

    return Split(name, jobs, sum(counts), read_classes(remote), name_of)
