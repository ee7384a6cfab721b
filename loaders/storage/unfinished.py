"""Unfinished conversions: how to recognize their folders, and the command that resumes them."""

import os
import shlex
from pathlib import Path

from common.errors import DataError
from loaders.transport.remote import is_remote

WORK = ".convert"
"""Folder of an unfinished conversion's state, below the destination."""
PLAN = f"{WORK}/plan.json"
COMMAND = f"{WORK}/command"
STAGE = ".ffcv-"
"""Prefix of the folder of shards that become .beton files; the rest of its name identifies the conversion."""


def refuse_unfinished(folder: str) -> None:
    """Raise a DataError if a data set's conversion is running or was interrupted; one in a store is not checked."""
    root = Path(folder)
    if is_remote(folder) or not ((root / PLAN).is_file() or list(root.glob(f"{STAGE}*"))):
        return
    command = root / COMMAND
    default = f"python -m tools.convert SRC {shlex.quote(str(folder))} (with the original options)"
    words = os.fsdecode(command.read_bytes()) if command.is_file() else default
    raise DataError(f"{folder}: its conversion is unfinished. To resume it, type: {words}")
