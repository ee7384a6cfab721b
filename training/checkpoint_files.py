"""Files of tensors that are whole or absent: written aside and renamed, their checksums verified before use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from common.errors import UserError
from common.folders import Folder, LocalFolder, existing
from common.whole_files import whole_file

_UNFINISHED = ".checkpoint-"  # how the name of a file starts while it is written


def write(content: dict[str, Any], folder: Folder, name: str) -> None:
    """Put a content into a folder under a name.

    Raises:
        UserError: if it cannot be written; nothing of that name has changed then.
    """
    try:
        with _new_file(folder.scratch) as file:
            torch.save(content, file)
            file.flush()
            folder.put(Path(file.name), name)
    except (OSError, RuntimeError) as error:
        raise _unwritten(error, content, folder, name) from error


def point(folder: Folder, alias: str, name: str) -> None:
    """Make `alias` a link to a checkpoint, or a copy if the file system has no links."""
    if not isinstance(folder, LocalFolder):
        return  # the newest in S3 is found by listing
    try:
        with whole_file(folder.path / alias) as temporary:
            temporary.symlink_to(name)
    except OSError:
        folder.copy(name, alias)


def check_writable(folder: Folder) -> None:
    """Raise a UserError if a run could not save into a folder, which is not made yet."""
    if not isinstance(folder, LocalFolder):
        folder.write(".writable", b"")
        folder.delete(".writable")
        return
    try:
        with tempfile.TemporaryFile(dir=existing(folder.path)):
            pass
    except OSError as error:
        raise UserError(
            f"save_folder: {folder} cannot be written ({error.strerror}); "
            "give another one with save_folder=FOLDER, or save_folder=null to keep no checkpoints"
        ) from None


def remove_dead(folder: Folder) -> None:
    """Remove the files that killed runs were writing: a living run holds a lock on its own."""
    # A local folder is the run's own; files for S3 are written among those of other programs.
    pattern = ".*.tmp" if isinstance(folder, LocalFolder) else f"{_UNFINISHED}*.tmp"
    for path in list(folder.scratch.glob(pattern)):
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


@contextlib.contextmanager
def _new_file(folder: Path) -> Iterator[BinaryIO]:
    """Yield a new file, locked until it has been moved to its name, and removed if it has not."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{_UNFINISHED}{uuid.uuid4().hex}.tmp"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # without locks, nobody takes it for a dead run's either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # another run removed it before it was locked
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def _unwritten(error: Exception, content: Any, folder: Folder, name: str) -> UserError:
    """What to say of a file that could not be written; torch reports a full disk as a RuntimeError about positions."""
    place = folder.scratch
    size, free = size_of(content), shutil.disk_usage(existing(place)).free
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
    except Exception:  # zipfile raises all sorts of errors for bytes that are not a checkpoint
        return False
