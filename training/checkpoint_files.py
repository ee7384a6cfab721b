"""Checkpoint files: written whole or not at all; a folder keeps the newest, the best and a link to the latest."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from composer.core import State

from common.errors import UserError
from common.folders import Folder, LocalFolder, check_folder, existing
from common.whole_files import whole_file
from config.weights import BEST, LATEST
from training.devices import say

_PATTERN = re.compile(r"^(ep(\d+)-ba(\d+)-)(rank0|own\d+-of-\d+)\.pt$")  # "own": see rank_states
_UNFINISHED = ".checkpoint-"  # prefix of a file that is being written


def name_of(state: State) -> str:
    """Return the name of a checkpoint of this state, such as 'ep1-ba40-rank0.pt'."""
    return f"ep{state.timestamp.epoch.value}-ba{state.timestamp.batch.value}-rank0.pt"


def batch_of(name: str) -> int:
    """Return 40 for 'ep1-ba40-rank0.pt'."""
    match = _PATTERN.match(name)
    assert match, f"{name} is not the name of a checkpoint"
    return int(match[3])


def newest_first(folder: Folder) -> list[str]:
    """Return the names of a folder's checkpoints, newest first."""
    matches = [match for name in folder.names() if (match := _PATTERN.match(name)) and match[4] == "rank0"]
    return [match[0] for match in sorted(matches, key=lambda match: (int(match[3]), int(match[2])), reverse=True)]


def find_latest(folder: Folder, name: str) -> str:
    """Return the newest checkpoint's name for `latest-rank0.pt` in a store, which has no links; else `name` itself."""
    is_link = name == LATEST and name not in folder.names()
    return next(iter(newest_first(folder)), name) if is_link else name


def tidy(folder: Folder, own: list[str], is_best: bool) -> None:
    """After a save: copy the checkpoint if it is the best, link it as the latest, delete those not in `own`."""
    if is_best:
        folder.copy(own[-1], BEST)
    if isinstance(folder, LocalFolder):  # in a store, the newest is found by listing
        try:
            with whole_file(folder.path / LATEST) as temporary:
                temporary.symlink_to(own[-1])
        except OSError:  # the file system has no links
            folder.copy(own[-1], LATEST)
    _delete_others(folder, own)


def clear(folder: Folder) -> None:
    """Delete the checkpoints of an overwritten run, so that this run never resumes from them."""
    for name in {BEST, LATEST} & set(folder.names()):
        folder.delete(name)
    _delete_others(folder, [])


def _delete_others(folder: Folder, own: list[str]) -> None:
    """Delete all checkpoints but these, with the ranks' own states that belong to them."""
    kept = {name.removesuffix("rank0.pt") for name in own}
    for name in sorted(folder.names(), reverse=True):  # a checkpoint before its ranks' states, which it needs
        if (match := _PATTERN.match(name)) and match[1] not in kept:
            folder.delete(name)


def write(content: dict[str, Any], folder: Folder, name: str) -> None:
    """Write a file of tensors into a folder; if that fails, an earlier file of this name is unchanged."""
    try:
        with _new_file(folder.scratch) as file:
            torch.save(content, file)
            file.flush()
            folder.put(Path(file.name), name)
    except (OSError, RuntimeError) as error:
        size, free = _size_of(content), _free(folder)
        # torch reports a full disk as a RuntimeError about positions.
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or free < size:
            raise UserError(_no_room(folder, size, free)) from error
        raise UserError(f"{folder}: the checkpoint {name} could not be written ({error})") from error


@contextlib.contextmanager
def _new_file(folder: Path) -> Iterator[BinaryIO]:
    """Yield a new file, locked until it is moved to its name; remove it if it is not moved."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{_UNFINISHED}{uuid.uuid4().hex}.tmp"
        file = path.open("xb")
        with contextlib.suppress(OSError):  # without locks, remove_dead() cannot lock it either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # another run removed it before it was locked
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def remove_dead(folder: Folder) -> None:
    """Remove the unfinished files of killed runs; a running run holds a lock on its own."""
    # A local folder belongs to the run; the files for S3 are written among those of other programs.
    pattern = ".*.tmp" if isinstance(folder, LocalFolder) else f"{_UNFINISHED}*.tmp"
    for path in list(folder.scratch.glob(pattern)):
        with contextlib.suppress(OSError):  # another user's, removed meanwhile, or locked
            if path.is_symlink():
                path.unlink()
                continue
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def check_writable(folder: Folder) -> None:
    """Raise a UserError if a run could not save into a folder, which need not exist yet."""
    if not isinstance(folder, LocalFolder):
        folder.write(".writable", b"")
        folder.delete(".writable")
        return
    advice = "give another one with save_folder=FOLDER, or save_folder=null to keep no checkpoints"
    check_folder(folder.path, f"save_folder: {folder}", advice)


def check_room(folder: Folder, content: dict[str, Any], keep: int, own: list[str]) -> None:
    """Warn early if a run's checkpoints do not fit on the disk: those kept, the best, and the one being written.

    Fails if not even one fits. For S3, each is written to the temporary folder first; `keep` = -1 (all) counts as 1.
    """
    size, free = _size_of(content), _free(folder)
    if free < size:
        raise UserError(_no_room(folder, size, free))
    number = abs(keep) + 2 - len(own) if isinstance(folder, LocalFolder) else 1
    if free < number * size:
        say(f"{_no_room(folder, size, free, number)}: saving will fail before the end of the run")


def _free(folder: Folder) -> int:
    """Return the free bytes where the folder's files are written."""
    return shutil.disk_usage(existing(folder.scratch)).free


def _size_of(content: Any) -> int:
    """Return the size in bytes of the tensors in a content."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, dict):
        return sum(map(_size_of, content.values()))
    return sum(map(_size_of, content)) if isinstance(content, list | tuple) else 0


def _no_room(folder: Folder, size: int, free: int, number: int = 1) -> str:
    """Return the message for a disk that is too full for a number of checkpoints of one size."""
    return (
        f"{folder.scratch}: no space left: {number} checkpoint{'s' if number > 1 else ''} of {size / 1e6:.1f} MB to "
        f"write, {free / 1e6:.1f} MB free. Free some space, or give another folder with save_folder=FOLDER"
    )


def is_whole(path: Path) -> bool:
    """Whether each record of a file has its checksum, and all of them together are no larger than the file.

    torch stores records uncompressed; a few bytes of compressed ones could fill all memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(record.file_size for record in archive.infolist())
            return size <= path.stat().st_size and archive.testzip() is None
    except Exception:  # zipfile raises all sorts of errors for bytes that are not a checkpoint
        return False
