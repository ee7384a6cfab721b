"""Copies a data set to a fast disk of this machine before training: whole, checked, once per node.

The source is a folder (of images, MDS shards, .beton files, anything) or a store that mosaicml-streaming can read.
Beside the files the copy has a folder .preload, whose manifest.json is written last: without it a copy is not complete,
however it was interrupted, and the next call goes on where the last one stopped.
"""

import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.addresses import is_s3, without_credentials
from common.errors import DataError
from loaders.transport.preloading.copying import Copied, Copier
from loaders.transport.preloading.node import Announcement, wait_for_announcement
from loaders.transport.preloading.records import Records
from loaders.transport.preloading.source_files import OWN_FOLDER
from loaders.transport.remote import is_remote

_POLL = 0.2  # seconds
_calls = itertools.count(1)


def copy(source: str, destination: str | Path, splits: Sequence[str] | None = None, shown: bool = True) -> Copied:
    """Make `destination` a complete copy of `source`; of one that is complete already, only some files are looked at.

    Args:
        source: a folder, or a store's address such as s3://bucket/folder. Stores other than S3 are not listed: their
            files are those that train/index.json and val/index.json name.
        destination: a folder of this machine, new or of an earlier preload. Two processes may name the same one: the
            second waits for the first.
        splits: copy these (`train`, `val`) and classes.json only; None for everything.
        shown: show how far it is.

    Returns:
        What was done.

    Raises:
        DataError: the source cannot be read or is damaged, or the destination has too little room, cannot be written
            or holds something else. What was copied stays, for the next call.
    """
    source = _named(source)
    folder = _prepare(source, destination)
    with _alone(folder, shown):
        records = Records(folder, source)
        if not records.is_current(splits):
            return Copier(records, splits, shown).run()
        if shown and not records.source_reached:
            print(f"{records.identity}: cannot be reached; its copy in {folder} is used as it is.", flush=True)
        sizes = [entry[0] for entry in records.files(splits).values()]
        return Copied(len(sizes), sum(sizes))


def preload_once_per_node(source: str, destination: str | Path, splits: Sequence[str] | None = None) -> Path:
    """As `copy`, called by every rank of a distributed run: local rank 0 copies, the others of its node wait.

    No collective operation is used, because a copy takes longer than any of those may. Only global rank 0 shows how far
    it is.

    Raises:
        DataError: as `copy`, on every rank of the node; or the copying rank has died.
    """
    rank, local_rank, ranks_here = (
        int(os.environ.get(name) or default)
        for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    )
    call = next(_calls)
    folder = _prepare(_named(source), destination)
    if local_rank != 0:
        wait_for_announcement(folder, call)
    elif ranks_here == 1:
        copy(source, folder, splits, shown=rank == 0)
    else:
        with Announcement(folder, call):
            copy(source, folder, splits, shown=rank == 0)
    return folder


def _named(source: str | Path) -> str:
    """A source as text; user and password mean nothing to S3, and must not get into its client's messages."""
    text = os.fspath(source)
    return without_credentials(text) if is_s3(text) else text


def _prepare(source: str, destination: str | Path) -> Path:
    """Make the destination's folder, if it may be one.

    Raises:
        DataError: it is a store, holds something else, overlaps with the source, or cannot be made.
    """
    if is_remote(str(destination)):
        place = without_credentials(str(destination))
        raise DataError(f"{place}: is no folder of this machine. Name one on a local disk.")
    if not is_remote(source):
        here, there = os.path.realpath(destination), os.path.realpath(source)
        if os.path.commonpath([here, there]) in (here, there):
            raise DataError(f"{destination}: lies in {source}, or the other way round. Name a folder elsewhere.")
    folder = Path(destination)
    try:
        if folder.is_dir() and os.listdir(folder) and not (folder / OWN_FOLDER).is_dir():
            raise DataError(f"{folder}: holds files that no preload has written. Name a new or empty folder.")
        (folder / OWN_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made or looked into ({error.strerror}). Name another.") from error
    return folder


@contextmanager
def _alone(destination: Path, shown: bool) -> Iterator[None]:
    """Hold the destination's lock, which ends with this process however it ends; wait for another's first."""
    path = destination / OWN_FOLDER / "lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Name another folder.") from error
    with file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if shown and not told:
                    print(f"{destination}: another process is copying to it; waiting for it to end.", flush=True)
                told = True
                time.sleep(_POLL)
            except OSError as error:
                raise DataError(f"{destination}: cannot be locked ({error.strerror}). Name a local disk.") from error
        yield
