"""Files of tensors that are whole or absent: written aside and renamed, their checksums verified before use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from training.storage import UNFINISHED, Folder


def write(content: dict[str, Any], folder: Folder, name: str) -> None:
    """Put a content into a folder under a name.

    Raises:
        UserError: if it cannot be written; nothing of that name has changed then.
    """
    temporary = None
    try:
        descriptor, temporary = _new_file(folder.scratch())
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from the people who share the run
            folder.put(Path(temporary), name)
    except (OSError, RuntimeError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # its room counts as free
        raise _unwritten(error, content, folder, name) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def remove_dead(folder: Folder) -> None:
    """Remove the files that killed runs were writing: a living run holds a lock on its own."""
    for path in folder.unfinished():
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile, or locked
            if not path.is_symlink():
                with path.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            else:
                path.unlink()


def size_of(content: Any) -> int:
    """Bytes that the tensors in a content take."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, list | tuple) else 0


def no_room(place: str, size: int, free: int, number: int = 1) -> str:
    """The sentence for a disk that is too full for a number of checkpoints of one size."""
    return (
        f"{place}: no space left: {number} checkpoint{'s' if number > 1 else ''} of {size / 1e6:.1f} MB to write, "
        f"{free / 1e6:.1f} MB free. Free some space, or give another folder with save_folder=FOLDER"
    )


def _new_file(folder: Path) -> tuple[int, str]:
    """A file of a new name, open and locked for as long as it is written."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=".tmp", dir=folder)
        with contextlib.suppress(OSError):  # a file system without locks: nobody will take it for a dead run's either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # another run has removed it, before it was locked


def _unwritten(error: Exception, content: Any, folder: Folder, name: str) -> UserError:
    """What to say of a file that could not be written; torch reports a full disk as a RuntimeError about positions."""
    place = folder.scratch()
    size, free = size_of(content), shutil.disk_usage(place).free
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or free < size:
        return UserError(no_room(str(place), size, free))
    return UserError(f"{folder}: the checkpoint {name} could not be written ({error})")


def is_whole(path: Path) -> bool:
    """Whether every record of a file has the checksum that it was written with, and all of them its size at most.

    They are stored as they are: compressed ones, of which a few bytes could fill all memory, are not torch's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(record.file_size for record in archive.infolist())
            return size <= path.stat().st_size and archive.testzip() is None
    except Exception:  # whatever bytes that are no checkpoint make zipfile say
        return False
