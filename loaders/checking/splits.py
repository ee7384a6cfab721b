"""A data set's splits: what there is to look into, and what was found in it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError, named
from common.store_faults import StoreOutOfReach
from loaders.checking.jobs import FolderJob, Job, Looked, ShardJob
from loaders.storage.imagefolder import (
    SPLITS,
    class_names,
    empty_classes,
    is_image,
    list_class,
    listing_remarks,
    structure_faults,
)
from loaders.storage.kinds import kind_at
from loaders.storage.streaming import check_index, read_classes
from loaders.transport.remote import is_remote

IMAGES_PER_JOB = 64


class Split:
    """One split: its jobs, an item per image of what they found, and what there is to say of it.

    Args:
        name: `train` or `val`.
        jobs: together, every image once.
        images: how many images.
        classes: the names of the classes by label, or None where they are not recorded.
        name_of: an image's name for messages, from its place.

    Attributes:
        num_classes: None where it is not known.
        per_class: how many images each class has; empty where it is not known.
        stored: bytes of all files; 0 where the images' own are counted.
        sizes: (width, height) in pixels, of the images that were decoded.
        deep: how many of these are grey with more than 8 bits.
        is_sample: whether there are jobs for a part of the images only.
    """

    def __init__(
        self, name: str, jobs: Sequence[Job], images: int, classes: list[str] | None, name_of: Callable[[int], str]
    ) -> None:
        self.name, self.jobs, self.images = name, jobs, images
        self.classes, self.name_of = classes, name_of
        self.num_classes = len(classes) if classes else None
        self.per_class: list[int] = []
        self.stored = self.deep = 0
        self.sizes: list[tuple[int, int]] = []
        self.remarks: list[str] = []
        self.faults: list[str] = []
        self.is_sample = False
        self.digests = np.zeros(images, np.uint64)
        self.bytes = np.zeros(images, np.int64)  # stays 0 where nothing could be read
        self.labels = np.full(images, -1)

    def add(self, job: Job, found: Looked) -> None:
        """Add what a job found."""
        place = slice(job.start, job.start + len(found.bytes))
        self.digests[place], self.bytes[place], self.labels[place] = found.digests, found.bytes, found.labels
        self.sizes += [size for size in found.sizes if size != (0, 0)]
        self.faults += found.faults
        self.deep += found.deep
        known = len(self.classes) if self.classes else None
        wrong = [label for label in found.labels if known is not None and label >= known]
        if wrong and isinstance(job, ShardJob):
            self.faults.append(
                f"{job.place()}: {len(wrong)} labels such as {wrong[0]} are outside of the classes (0 to "
                f"{len(self.classes or []) - 1}, by classes.json). Convert the data set again."
            )

    def finish(self) -> None:
        """Sum up, when every job is done."""
        self.stored = self.stored or int(self.bytes.sum())
        self.faults.sort()
        if self.deep:
            what = "1 image is" if self.deep == 1 else f"{self.deep:,} images are"
            self.remarks.append(
                f"{self.name}: {what} grey with more than 8 bits a pixel; what is above 255 is white in training. "
                "Convert them to 8 bits."
            )
        if not (self.per_class or self.is_sample):
            there = self.labels[self.labels >= 0]
            self.per_class = np.bincount(there, minlength=len(self.classes or [])).tolist()
        self.num_classes = self.num_classes or len(self.per_class) or None
        read = self.digests[self.bytes > 0]
        if twice := len(read) - len(np.unique(read)):
            self.remarks.append(f"{self.name}: {twice} images are copies of others in it.")


def open_splits(path: str, local: str | None) -> tuple[list[Split], list[str]]:
    """The splits of a data set of either kind, and the faults that show before an image is opened.

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
    if not is_remote(path) and not any(kind_at(root, split) == "streaming" for split in SPLITS):
        splits, faults = open_folder(root)
        loose = [fault for split in splits for fault in _loose_images(root / split.name)]
        return ([], loose) if loose else (splits, faults)
    splits, faults = open_shards(path, local or path)
    if splits and local and is_remote(path):
        _check_room(splits, Path(local))
    return splits, faults


def open_folder(root: Path) -> tuple[list[Split], list[str]]:
    """The splits of an image folder, and the faults that show before an image is opened."""
    there = tuple(split for split in SPLITS if (root / split).is_dir())
    faults = structure_faults(root, needed=there or SPLITS)
    if faults:
        return [], faults  # mended in a minute; looking into all images may take an hour
    return [_folder_split(root / split) for split in there], structure_faults(root)


def open_shards(remote: str, local: str) -> tuple[list[Split], list[str]]:
    """The splits of a data set in MDS shards, and the faults of their indexes.

    Args:
        remote: a folder, or a store's address.
        local: cache folder; the same folder as `remote` where the shards need no copy.

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
    """The names of the images that lie directly in a split's folder, sorted."""
    return sorted(name for name in os.listdir(folder) if is_image(name) and (folder / name).is_file())


def _loose_images(folder: Path) -> list[str]:
    """A split where some images are in class folders and some are not, which nobody would read."""
    if not (loose := loose_images(folder)):
        return []
    return [
        f"{folder}: {len(loose)} images lie directly in it, beside the classes' folders ({named(loose)}). Move each "
        "into its class' folder, or delete them."
    ]


def _folder_split(folder: Path) -> Split:
    """A split of an image folder."""
    classes = class_names(folder)
    names: list[str] = []
    jobs: list[FolderJob] = []
    found = [list_class(folder / name) for name in classes]
    for label, (name, (files, _, _)) in enumerate(zip(classes, found, strict=True)):
        for start in range(0, len(files), IMAGES_PER_JOB):
            part = files[start : start + IMAGES_PER_JOB]
            jobs.append(FolderJob(len(names) + start, folder / name, part, label))
        names += [f"{name}/{file}" for file in files]
    split = Split(folder.name, jobs, len(names), classes, lambda place: str(folder / names[place]))
    split.per_class = [len(listing.images) for listing in found]
    split.remarks += listing_remarks(folder, classes, found)
    if empty := [name for name, count in zip(classes, split.per_class, strict=True) if not count]:
        split.faults.append(empty_classes(folder, empty))
    return split


def _shard_split(remote: str, local: str, name: str) -> Split:
    """A split in MDS shards."""
    entries = check_index(remote, local, name)["shards"]
    counts = [entry["samples"] for entry in entries]
    starts = np.cumsum([0, *counts])
    jobs = [ShardJob(int(starts[at]), remote, local, name, entry) for at, entry in enumerate(entries)]

    def name_of(place: int) -> str:
        shard = int(np.searchsorted(starts, place, side="right")) - 1
        return f"{jobs[shard].place()}, sample {place - starts[shard]}"

    split = Split(name, jobs, sum(counts), read_classes(remote), name_of)
    split.stored = sum(job.stored["bytes"] for job in jobs)
    return split


def _check_room(splits: list[Split], local: Path) -> None:
    """Refuse a cache folder without the room for the shards that are still to be fetched."""
    jobs: list[Any] = [job for split in splits for job in split.jobs]
    wanted = sum(job.stored["bytes"] for job in jobs if not (local / job.split / job.stored["basename"]).is_file())
    local.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(local).free
    if wanted > free:
        raise DataError(
            f"{local}: {wanted / 1e9:,.1f} GB of shards are to be fetched, but {free / 1e9:,.1f} GB are free. "
            "Name a cache folder on a larger disk."
        )
