"""Exclusive use of a folder by one process: a lock file, which the kernel releases however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from pathlib import Path

from common.errors import ConfigError, UserError

NAME = ".lock"
_held: set[int] = set()


class LockFile:
    """Locks a folder, created if it does not exist, until release(), or until the process ends.

    Works across machines if the file system forwards flock, as NFS does. `patience` is the number of seconds to wait
    for a process that is still exiting.

    Raises:
        ConfigError: another process holds the lock.
        UserError: the lock file cannot be written.
    """

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.path = folder / NAME
        deadline = time.monotonic() + patience
        try:
            while not self._is_locked():
                if time.monotonic() >= deadline:
                    raise ConfigError(
                        f"run_name: {folder} is in use by another run ({self.path.read_text().strip()}). "
                        "Start this one when it has finished, or give another run_name=ANOTHER"
                    )
                time.sleep(0.1)
        except OSError as error:
            raise UserError(
                f"runs_folder: {self.path} cannot be written ({error.strerror}); use another folder: runs_folder=FOLDER"
            ) from error

    def release(self) -> None:
        """Remove the lock file, unless that was done already."""
        if self.descriptor in _held:
            self.path.unlink(missing_ok=True)  # before unlocking, so that a waiting process notices that it is gone
            _held.remove(self.descriptor)
            os.close(self.descriptor)

    def _is_locked(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.descriptor)
            return False
        except OSError as error:
            print(f"{self.path}: no file locks here ({error.strerror}); a second run of this name would not be noticed")
        try:
            is_current = os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            is_current = False
        if not is_current:  # the previous holder has removed the file in the meantime
            os.close(self.descriptor)
            return self._is_locked()
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        _held.add(self.descriptor)
        return True


def _close_in_child() -> None:
    """Close the lock in a forked worker: it is held while any process has the file open, and workers can outlive us."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
