"""Keep a folder's newest checkpoints, its best one and a link to the latest; check that they fit on the disk."""

from __future__ import annotations

import re
import shutil
from typing import Any

from composer.core import State

from common.folders import Folder, LocalFolder, existing
from config import UserError
from training import rank_states
from training.checkpoint_files import no_room, point, size_of
from training.devices import say
from training.record import LATEST

BEST = "best-rank0.pt"
_PATTERN = re.compile(r"^ep(\d+)-ba(\d+)-rank0\.pt$")


def name_of(state: State) -> str:
    """Return the name of a checkpoint of this state, such as 'ep1-ba40-rank0.pt'."""
    return f"ep{state.timestamp.epoch.value}-ba{state.timestamp.batch.value}-rank0.pt"


def newest_first(folder: Folder) -> list[str]:
    """Return the names of a folder's checkpoints, newest first."""
    names = [(int(match[2]), int(match[1]), name) for name in folder.names() if (match := _PATTERN.match(name))]
    return [name for _, _, name in sorted(names, reverse=True)]


def find_latest(folder: Folder, name: str) -> str:
    """Return the newest checkpoint's name for `latest-rank0.pt` in a store, which has no links; else `name` itself."""
    is_link = name == LATEST and name not in folder.names()
    return next(iter(newest_first(folder)), name) if is_link else name


def base_of(name: str) -> str:
    """Return 'ep1-ba40' for 'ep1-ba40-rank0.pt'."""
    return name.removesuffix("-rank0.pt")


def batch_of(name: str) -> int:
    """Return 40 for 'ep1-ba40-rank0.pt'."""
    match = _PATTERN.match(name)
    assert match, f"{name} is not the name of a checkpoint"
    return int(match[2])


def tidy(folder: Folder, own: list[str], is_best: bool) -> None:
    """After a save: copy the checkpoint if it is the best, link it as the latest, delete those not in `own`."""
    if is_best:
        folder.copy(own[-1], BEST)
    point(folder, LATEST, own[-1])
    for name in newest_first(folder):
        if name not in own:
            folder.delete(name)
    rank_states.tidy(folder, map(base_of, own))


def clear(folder: Folder) -> None:
    """Delete the checkpoints of an overwritten run, so that this run never resumes from them."""
    for name in folder.names():
        if name in (BEST, LATEST) or _PATTERN.match(name):
            folder.delete(name)
    rank_states.tidy(folder, [])


def check_room(folder: Folder, content: dict[str, Any], keep: int, own: list[str]) -> None:
    """Warn early if a run's checkpoints do not fit on the disk: those kept, the best, and the one being written.

    Args:
        folder: where they go; for S3, each is written to the temporary folder first.
        content: of a checkpoint.
        keep: how many of the newest are kept; -1 (all of them) counts as 1.
        own: those already saved.

    Raises:
        UserError: if not even one fits.
    """
    scratch, size = folder.scratch, size_of(content)
    free = shutil.disk_usage(existing(scratch)).free
    if free < size:
        raise UserError(no_room(str(scratch), size, free))
    number = abs(keep) + 2 - len(own) if isinstance(folder, LocalFolder) else 1
    if free < number * size:
        say(f"{no_room(str(scratch), size, free, number)}: saving will fail before the end of the run")
