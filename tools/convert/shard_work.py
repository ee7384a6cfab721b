"""Make and store one shard, or check a stored one, in a worker process."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import DataError
from common.folders import Folder
from loaders.errors import unreadable
from loaders.storage.mds_writer import Sample, ShardFormat, count_samples, read_sample, stored_file, unpack
from loaders.storage.unfinished import WORK
from tools.convert import crew
from tools.convert.plan import ImageOptions
from tools.convert.sources import Part

Note = dict[str, Any]
"""A finished shard: `shard` (its entry of the index; None if no image was readable) and `skipped` (sentences)."""


@dataclass(frozen=True)
class ShardJob:
    """One shard."""

    destination: Folder  # of the data set
    split: str
    number: int  # index of the shard in the split
    part: Part  # its images
    images: ImageOptions
    shards: ShardFormat
    skip: bool  # leave unreadable images out, instead of failing
    classes: int | None  # number of classes; None if unknown


def note_name(split: str, number: int) -> str:
    """Return the name of the file that marks a shard as finished."""
    return f"{WORK}/{split}/{number:05}.json"


def make_shard(job: ShardJob) -> Note:
    """Read, check and resize a shard's images; store the shard, then the note that it is finished."""
    samples: list[Sample] = []
    skipped: list[str] = []
    for place, index in enumerate(job.part.indices.tolist()):
        try:
            data, label = job.part.read(place)
            if job.classes is not None and label >= job.classes:
                raise DataError(
                    f"{job.part.name_of(place)}: its label is {label}, outside of the classes (0 to {job.classes - 1}, "
                    "by classes.json). Write the data set again, or fix classes.json."
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
    """Check a stored shard's bytes, hashes and count, and one image against its source; return the fault, if any."""
    entry = note["shard"]
    planned = len(job.part.indices) - len(note["skipped"])
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
    remade = job.images.remake(data)
    if label != source_label or image != remade:
        return f"holds something other than {job.part.name_of(place)}"
    job.images.check(remade)
    crew.report(planned)
    return None
