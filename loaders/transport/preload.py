"""Copy a data set to a fast disk of this machine before training: complete, verified, and once per machine.

The source is a folder (of images, MDS shards, .beton files, anything) or a store that mosaicml-streaming can read. The
copy has one more folder, `.preload`, whose manifest says which splits are complete. An interrupted copy continues
where it stopped.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.addresses import cut_off, is_s3, without_credentials
from common.errors import DataError
from loaders.storage.kinds import is_archives
from loaders.transport.preloading.copying import Copied, Copier
from loaders.transport.preloading.records import Records
from loaders.transport.preloading.source_files import OWN_FOLDER, identity
from loaders.transport.remote import is_remote

HEAD_START = 2.0  # seconds in which the rank that shows progress locks the copy before the other ranks


def copy(source: str, destination: str | Path, splits: Sequence[str] | None = None, shown: bool = True) -> Copied:
    """Make `destination` a complete copy of `source`; if it is one already, only a sample of its files is checked.

    Several processes may name the same destination: one copies, and the others wait for it.

    Args:
        source: a folder, or a store's address such as s3://bucket/folder.
        destination: a folder of this machine, new or made by an earlier preload.
        splits: copy only these (`train`, `val`) and classes.json; None for everything. Archives and the like
            (loaders.archives) are always copied whole.
        shown: whether to show progress. A process that does not gives one that does a head start.

    Raises:
        DataError: the source is unreadable or damaged, or the destination is full, cannot be written or holds
            something else. Finished files are kept for the next call.
    """
    source = os.fspath(source)
    if is_s3(source):  # its user and password mean nothing to S3, and its client's messages would show them
        source = without_credentials(source)
    if problem := cut_off(source):
        raise DataError(without_credentials(problem))
    folder = _prepare(source, destination)
    records = Records(folder, source)
    if splits and is_archives(str(folder) if records.is_complete(splits) else source):
        splits = None  # their files belong to no split by name
    if not records.is_current(splits):
        if not shown:
            time.sleep(HEAD_START)
        with _locked(folder, json.dumps([identity(source), splits]), shown) as was_copied:
            records = Records(folder, source)
            if not (records.is_complete(splits) if was_copied else records.is_current(splits)):
                return Copier(records, splits, shown).run()
    if shown and not records.source_reached:
        print(f"{records.identity}: cannot be reached; its copy in {folder} is used unchecked.", flush=True)
    sizes = [entry[0] for entry in records.files_of(splits).values()]
    return Copied(len(sizes), sum(sizes))


def preload_once_per_node(source: str, destination: str | Path, splits: Sequence[str] | None = None) -> Path:
    """Call `copy` on every rank of a run, so that one rank of each node copies; global rank 0 shows progress.

    A failed copy raises the same DataError on every rank of the node. No collective operation is used, because a copy
    takes longer than their time-outs.
    """
    copy(source, destination, splits, shown=int(os.environ.get("RANK") or 0) == 0)
    return Path(destination)


def _prepare(source: str, destination: str | Path) -> Path:
    """Create the destination; raises a DataError if it is a store, holds other files or overlaps with the source."""
    if is_remote(str(destination)):
        address = without_credentials(str(destination))
        raise DataError(f"{address}: is not a local folder. Name one on a local disk.")
    if not is_remote(source):
        real_paths = os.path.realpath(destination), os.path.realpath(source)
        if os.path.commonpath(real_paths) in real_paths:
            raise DataError(f"{destination}: overlaps with the source, {source}. Name a folder elsewhere.")
    folder = Path(destination)
    try:
        if folder.is_dir() and os.listdir(folder) and not (folder / OWN_FOLDER).is_dir():
            raise DataError(f"{folder}: holds files that no preload has written. Name a new or empty folder.")
        (folder / OWN_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be created or read ({error.strerror}). Name another folder.") from error
    return folder


@contextmanager
def _locked(folder: Path, request: str, shown: bool) -> Iterator[bool]:
    """Hold the copy's lock, which the kernel releases when this process ends; wait for another holder first.

    Yields whether another process has completed the same request meanwhile. The lock file tells processes that waited
    how the holder's copy ended: the request, in one line, and an error message, which is empty if the copy succeeded.
    If the holder was killed, the next process continues.

    Raises:
        DataError: the same request has failed meanwhile, or the folder has no locks.
    """
    path = folder / OWN_FOLDER / "lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Name another folder.") from error
    with file:
        outcome = ""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if shown:
                print(f"{folder}: another process is copying to it; waiting for it to finish.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            outcome = file.read()
        except OSError as error:
            raise DataError(f"{folder}: cannot be locked ({error.strerror}). Name a local disk.") from error
        done, _, message = outcome.partition("\n")
        if done == request and message:
            raise DataError(message)
        if done == request:
            yield True
            return
        file.truncate(0)
        try:
            yield False
            file.write(f"{request}\n")
        except DataError as error:
            file.write(f"{request}\n{error}")
            raise
