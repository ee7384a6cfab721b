"""How the copying rank of a node tells the others how it goes, without a collective operation.

The word is a small file below the copy, which the copying rank keeps locked for as long as it lives: the kernel drops
the lock however the process ends. What nobody holds a lock on is an earlier run's word, unless it is younger than the
process that reads it.
"""

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import IO, Any

from common.errors import DataError, sentence_of
from loaders.transport.preloading.source_files import OWN_FOLDER

BEGIN_SECONDS = 30.0  # by which the ranks of a node may be apart
_POLL = 0.2
_began = time.time()
_held: dict[Path, IO[str]] = {}  # open until the process ends: closing one drops its lock


def _word_file(destination: Path) -> Path:
    """Where the ranks of this job on this node look: jobs differ in the master's address and port."""
    job = "-".join(os.environ.get(name, "none") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return Path(os.path.abspath(destination), OWN_FOLDER, f"rank-{re.sub(r'[^A-Za-z0-9.]', '_', job)}.json")


class Announcement:
    """What local rank 0 does inside this context is announced: that it is under way, and how it ended.

    Args:
        destination: the copy's folder.
        call: the how-many-th preload of this process it is; the same on every rank.
    """

    def __init__(self, destination: Path, call: int) -> None:
        self._path, self._call = _word_file(destination), call

    def __enter__(self) -> "Announcement":
        try:
            if self._path not in _held:
                _held[self._path] = _open_and_lock(self._path)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror}). Name a local disk.") from error
        self._tell("copying")
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._tell("done")
        else:
            self._tell("failed", sentence_of(error) or f"{type(error).__name__}: {error}")

    def _tell(self, state: str, why: str = "") -> None:
        """One line in place of the last; a reader that sees half of it asks again."""
        file = _held[self._path]
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"call": self._call, "state": state, "why": why}) + "\n")
        file.flush()


def _open_and_lock(path: Path) -> IO[str]:
    """The file, emptied of what an earlier run said before it is locked."""
    file, deadline = path.open("w"), time.monotonic() + BEGIN_SECONDS
    while True:
        try:
            # A record lock: unlike flock's, it does not pass to processes that are forked from this one.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:  # by a rank that looks whether it is locked, or by another run
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL)


def wait_for_announcement(destination: Path, call: int) -> None:
    """Wait until local rank 0 has made the copy.

    Args:
        destination: the copy's folder.
        call: the how-many-th preload of this process it is.

    Raises:
        DataError: it failed, died, or never began.
    """
    path, deadline = _word_file(destination), time.monotonic() + BEGIN_SECONDS
    seen = False
    while True:
        alive, written, word = _ask(path)
        seen = seen or alive or (word is not None and written > _began)
        if seen and word and word["call"] >= call:
            if word["state"] == "done" or word["call"] > call:
                return
            if word["state"] == "failed":
                raise DataError(word["why"])
        if seen and not alive:
            raise DataError(
                f"{destination}: the process that copied to it (local rank 0) has died. Look at its last lines, then "
                "start again: what is copied stays."
            )
        if not seen and time.monotonic() > deadline:
            raise DataError(
                f"{destination}: local rank 0, which should copy to it, has not begun within {BEGIN_SECONDS:.0f} s. "
                "It has failed, or the ranks of this node do not see the same folder."
            )
        time.sleep(_POLL)


def _ask(path: Path) -> tuple[bool, float, dict[str, Any] | None]:
    """Whether the copying rank lives, when it spoke last (as time.time does), and its last word, if any."""
    alive, written = False, 0.0
    try:
        with path.open() as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                alive = True
            written = os.fstat(file.fileno()).st_mtime
            return alive, written, json.loads(file.read())
    except (OSError, ValueError):
        return alive, written, None
