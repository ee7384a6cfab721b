"""A conversion that has not ended: how its folder shows it, and what to type to go on with it."""

import os
import shlex
from pathlib import Path

from common.errors import DataError
from loaders.transport.remote import is_remote

WORK = ".convert"
"""The folder of an unfinished conversion's notes, below the destination."""
PLAN = f"{WORK}/plan.json"
COMMAND = f"{WORK}/command"
STAGE = ".ffcv-"
"""How the folder of the shards that become .beton files begins; what it goes on with tells one conversion from another.
"""


def refuse_unfinished(folder: str) -> None:
    """Look for a conversion that has not ended.

    Args:
        folder: a data set; one in a store is not looked into.

    Raises:
        DataError: it is still being written, or was interrupted.
    """
    root = Path(folder)
    if is_remote(folder) or not ((root / PLAN).is_file() or list(root.glob(f"{STAGE}*"))):
        return
    command = root / COMMAND
    begun = f"python -m tools.convert SRC {shlex.quote(str(folder))} (as it was begun)"
    words = os.fsdecode(command.read_bytes()) if command.is_file() else begun
    raise DataError(f"{folder}: its conversion has not ended. To go on with it, type: {words}")
