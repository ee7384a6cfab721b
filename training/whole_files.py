"""Files of tensors that are whole or absent: written aside and renamed, their checksums verified before use."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from config import UserError
from training.storage import Folder


def write(content: dict[str, Any], folder: Folder, name: str) -> None:
    """Put a content into a folder under a name.

    Raises:
        UserError: if it cannot be written; nothing of that name has changed then.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder.scratch())
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from the people who share the run
        folder.put(Path(temporary), name)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(f"{folder}: the checkpoint {name} could not be written ({error})") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether every record of a file has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # whatever bytes that are no checkpoint make zipfile say
        return False
