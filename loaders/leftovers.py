"""Shared memory that a killed run left behind: found, told apart from a living run's, and removed.

mosaicml-streaming keeps what the processes of a run share in /dev/shm, under a number, and refuses a cache folder that
any number names. A run ended by SIGKILL leaves its number there for ever.
"""

import os
import tempfile
from pathlib import Path

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, LOCALS, SHM_TO_CLEAN

SHARED = Path("/dev/shm")


def remove_leftovers(folder: str) -> None:
    """Remove the shared memory of dead runs that used a cache folder; a living run's stays.

    Args:
        folder: a split's folder in the cache.
    """
    wanted = os.path.abspath(folder).lstrip("/").encode()
    for file in SHARED.glob(f"*_{LOCALS}"):
        try:
            names = file.read_bytes()
        except OSError:
            continue
        number = file.name.removesuffix(f"_{LOCALS}")
        if wanted not in names or _is_mapped(number):
            continue
        for name in SHM_TO_CLEAN:
            (SHARED / f"{number}_{name}").unlink(missing_ok=True)
        for name in (BARRIER_FILELOCK, CACHE_FILELOCK):
            Path(tempfile.gettempdir(), f"{number}_{name}").unlink(missing_ok=True)


def _is_mapped(number: str) -> bool:
    """Whether a process has the shared memory of this number open."""
    wanted = f"{SHARED}/{number}_"
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if wanted in maps.read_text():
                return True
        except OSError:
            continue  # it has just ended, or belongs to somebody else
    return False
