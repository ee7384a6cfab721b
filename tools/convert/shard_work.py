"""What a worker process does: make one shard and store it, or check one that is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import DataError
from common.folders import Folder
from loaders.errors import unreadable
from loaders.images.decoding import check
from loaders.storage.mds_writer import Sample, ShardFormat, count_samples, read_sample, stored_file, unpack
from loaders.storage.unfinished import WORK
from tools.convert import crew
from tools.convert.shrinking import ImageOptions
from tools.convert.sources import Part

Note = dict[str, Any]
"""A finished shard: `shard` (its entry of the index; None if no image was readable) and `skipped` (sentences)."""


@dataclass(frozen=True)
class ShardJob:
    """One shard.

    Args:
        destination: where the data set is written.
        split: `train` or `val`.
        number: the shard's place in the split.
        part: its images.
        images: how they are stored.
        shards: how the shard is.
        skip: leave unreadable images out, instead of giving up.
        classes: how many there are, where that is known.
    """

    destination: Folder
    split: str
    number: int
    part: Part
    images: ImageOptions
    shards: ShardFormat
    skip: bool
    classes: int | None

    @property
    def count(self) -> int:
        """How many images the shard is meant for."""
        return len(self.part.indices)


def note_name(split: str, number: int) -> str:
    """The file that says that a shard is finished."""
    return f"{WORK}/{split}/{number:05}.json"


def make_shard(job: ShardJob) -> Note:
    """Read, check and resize a shard's images; store the shard, and after it the note that it is finished.

    Raises:
        DataError: images are unreadable and not to be skipped (all of the shard's are named), or the source or the
            destination fails.
    """
    samples: list[Sample] = []
    skipped: list[str] = []
    for place, index in enumerate(job.part.indices.tolist()):
        try:
            data, label = job.part.read(place)
            if job.classes is not None and label >= job.classes:
                raise DataError(
                    f"{job.part.name_of(place)}: its label is {label}, outside of the classes (0 to {job.classes - 1}, "
                    "by classes.json). Write the data set again, or mend classes.json."
                )
            samples.append((index, job.images.remake(data), label))
        except (DataError, MemoryError):
            raise
        except Exception as error:
            skipped.append(f"{job.part.name_of(place)}: {unreadable(error)}")
        crew.report(1)
    if skipped and not job.skip:
        advice = "Replace or delete them, or add --skip-unreadable to leave out whatever cannot be read."
        raise DataError("\n".join([*skipped, advice]))
    note: Note = {"shard": None, "skipped": skipped}
    if samples:
        note["shard"], stored = job.shards.pack(samples, job.number)
        job.destination.write(f"{job.split}/{stored_file(note['shard'])['basename']}", stored)
    job.destination.write(note_name(job.split, job.number), json.dumps(note, sort_keys=True).encode())
    return note


def check_shard(job: ShardJob, note: Note) -> str | None:
    """Read a stored shard again: bytes, hashes, number of samples, and one image beside its source.

    Returns:
        What is wrong with it, or None.

    Raises:
        DataError: the source or the destination cannot be read.
    """
    entry = note["shard"]
    planned = job.count - len(note["skipped"])
    if entry is None:
        return None if planned == 0 else "was not written"
    try:
        raw = unpack(entry, job.destination.read(f"{job.split}/{stored_file(entry)['basename']}"))
    except ValueError as error:
        return f"is damaged ({error})"
    if not planned == entry["samples"] == count_samples(raw):
        return f"holds {count_samples(raw)} images instead of {planned}"
    index, image, label = read_sample(entry, raw, job.number % planned)
    place = int(np.flatnonzero(job.part.indices == index)[0])
    data, source_label = job.part.read(place)
    if label != source_label or image != job.images.remake(data):
        return f"holds something else than {job.part.name_of(place)}"
    check(image)
    crew.report(planned)
    return None
