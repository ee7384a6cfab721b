"""Samples of splits for `python data.py`; `python -m tools.verify` checks everything.

Faults that show without decoding are still found in the whole split: empty files, missing or truncated shards.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np

from common.addresses import is_in_place, is_s3
from loaders.checking.jobs import EMPTY, FolderJob, ShardJob
from loaders.checking.splits import Split
from loaders.storage.shard_index import files_of
from loaders.transport.preloading.source_files import list_s3
from loaders.transport.remote import is_remote, join

SMALL = 5000  # images of a split up to which all are decoded
SAMPLE = 500  # images decoded of a larger split
SHARDS = 4  # shards downloaded of a larger split
_SEED = 0


def sample(split: Split) -> None:
    """Reduce a large split's jobs to a sample of its images, with a remark."""
    if shards := [job for job in split.jobs if isinstance(job, ShardJob)]:
        _sample_shards(split, shards)
    elif split.images > SMALL:
        _sample_files(split, [job for job in split.jobs if isinstance(job, FolderJob)])


def _sample_files(split: Split, jobs: list[FolderJob]) -> None:
    lengths = np.array([_length(job.folder / name) for job in jobs for name in job.names])
    split.stored = int(lengths.clip(min=0).sum())
    split.faults += [f"{split.name_of(index)}: {EMPTY}" for index in np.flatnonzero(lengths == 0)]
    nonempty, starts = np.flatnonzero(lengths), [job.start for job in jobs]
    chosen = np.random.default_rng(_SEED).choice(nonempty, min(SAMPLE, len(nonempty)), replace=False)
    split.jobs = [jobs[bisect_right(starts, index) - 1].only(int(index)) for index in np.sort(chosen)]
    split.remarks.append(f"{split.name}: {len(chosen)} of its {split.images} images were decoded.")
    split.is_sample = True


def _length(path: Path) -> int:
    """Bytes of a file; -1 if it is missing, which reading it will report."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


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
