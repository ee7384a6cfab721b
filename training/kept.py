"""Which checkpoints a folder keeps: the newest ones, the best one, a link to the latest; and whether they fit."""

from __future__ import annotations

import re
import shutil
from typing import Any

from common.folders import Folder, LocalFolder, existing
from config import UserError
from training import rank_states
from training.checkpoint_files import no_room, point, size_of
from training.devices import say
from training.record import LATEST

BEST = "best-rank0.pt"
_PATTERN = re.compile(r"^ep(\d+)-ba(\d+)-rank0\.pt$")


def newest_first(folder: Folder) -> list[str]:
    """The checkpoints in a folder, by batch."""
    found = [(int(match[2]), int(match[1]), name) for name in folder.names() if (match := _PATTERN.match(name))]
    return [name for _, _, name in sorted(found, reverse=True)]


def base_of(name: str) -> str:
    """ep1-ba40-rank0.pt -> ep1-ba40."""
    return name.removesuffix("-rank0.pt")


def batch_of(name: str) -> int:
    """ep1-ba40-rank0.pt -> 40."""
    match = _PATTERN.match(name)
    assert match, f"{name} is no checkpoint's name"
    return int(match[2])


def tidy(folder: Folder, own: list[str], is_best: bool) -> None:
    """After a checkpoint: keep a copy if it is the best, point to it as the latest, delete what is not to be kept."""
    if is_best:
        folder.copy(own[-1], BEST)
    point(folder, LATEST, own[-1])
    for name in newest_first(folder):
        if name not in own:
            folder.delete(name)
    rank_states.tidy(folder, map(base_of, own))


def clear(folder: Folder) -> None:
    """Delete the checkpoints of a run that is written over: this one must not go on from them."""
    for name in folder.names():
        if name in (BEST, LATEST) or _PATTERN.match(name):
            folder.delete(name)
    rank_states.tidy(folder, [])


def check_room(folder: Folder, content: dict[str, Any], keep: int, own: list[str]) -> None:
    """Say early whether the checkpoints of a run fit on the disk: those kept, the best, and the one being written.

    Args:
        folder: where they go; for S3 each is written to the temporary folder first.
        content: what a checkpoint holds.
        keep: how many of the newest are kept; -1 (all of them) counts as 1.
        own: those that are there already.

    Raises:
        UserError: if not even one fits.
    """
    place, size = folder.scratch, size_of(content)
    free = shutil.disk_usage(existing(place)).free
    if free < size:
        raise UserError(no_room(str(place), size, free))
    number = abs(keep) + 2 - len(own) if isinstance(folder, LocalFolder) else 1
    if free < number * size:
        say(f"{no_room(str(place), size, free, number)}: saving will fail before the run's end")
