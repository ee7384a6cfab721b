"""A folder that one process has to itself: a lock file in it, which the kernel releases however that process ends."""

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
    """Locks a folder until release(), or until the process ends.

    Works between machines where the file system passes flock on (NFS does); where it has no locks, the folder is not
    guarded, and a line says so.

    Args:
        folder: what to lock; made if it does not exist.
        patience: seconds to wait for a process that is still ending.

    Raises:
        ConfigError: if another process holds it.
        UserError: if the lock file cannot be written.
    """

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.path = folder / NAME
        deadline = time.monotonic() + patience
        try:
            while not self._is_locked():
                if time.monotonic() >= deadline:
                    raise ConfigError(
                        f"run_name: {folder} is in use by another run ({self.path.read_text().strip()}). "
                        "Start this one when it has ended, or give another run_name=ANOTHER"
                    )
                time.sleep(0.1)
        except OSError as error:
            raise UserError(
                f"runs_folder: {self.path} cannot be written ({error.strerror}); give another one with "
                "runs_folder=FOLDER"
            ) from error

    def release(self) -> None:
        """Remove the lock file; no error if that was done."""
        if self.descriptor in _held:
            self.path.unlink(missing_ok=True)  # while it is locked: whoever waits for it sees that it is gone
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
            print(f"{self.path}: no locks here ({error.strerror}); a second run of this name would go unnoticed")
        try:
            is_current = os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            is_current = False
        if not is_current:  # whoever held it has removed it meanwhile
            os.close(self.descriptor)
            return self._is_locked()
        os.ftruncate(self.descriptor, 0)
        os.write(self.descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        _held.add(self.descriptor)
        return True


def _close_in_child() -> None:
    """Let go in a loader's worker: a lock lasts while any process has the file open, and workers outlive a kill."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
