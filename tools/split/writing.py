"""Write DST/train/CLASS and DST/val/CLASS: hard links, or copies where the file system has none."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from common.cells import as_cell
from common.errors import DataError
from common.folders import existing
from common.sizes import amount
from common.whole_files import whole_folder
from tools.split.source import RECORD

COLUMNS = ("image", "split", "duplicate_of", "fault")
Row = tuple[str, str, str, str]
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write(source: Path, target: Path, rows: Sequence[Row], progress: Callable[[int], None]) -> int:
    """Write the split, which appears when it is complete; return how many images had to be copied.

    `rows` are those of split.csv; images without a split are left out.
    """
    placed = [(name, split) for name, split, *_ in rows if split]
    _check_room(source, target, [name for name, _ in placed])
    copies = 0
    try:
        with whole_folder(target) as folder:
            _make_folders(folder, target, [f"{split}/{name}" for name, split in placed])
            for number, (name, split) in enumerate(placed):
                try:
                    copies += _place(source / name, folder / split / name)
                except FileExistsError as error:
                    raise _case_clash(target, name) from error
                progress(number + 1)
            with (folder / RECORD).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                csv.writer(file).writerows([COLUMNS, *([as_cell(cell) for cell in row] for row in rows)])
    except OSError as error:
        raise DataError(_explained(error, target)) from error
    return copies


def _make_folders(folder: Path, target: Path, names: Sequence[str]) -> None:
    """Make the folders of the files `names`, SPLIT/CLASS/..."""
    for split_class in sorted({name[: name.index("/", name.index("/") + 1)] for name in names}):
        try:
            (folder / split_class).mkdir(parents=True)
        except FileExistsError as error:
            raise _case_clash(target, split_class) from error
    for below in {os.path.dirname(name) for name in names}:
        (folder / below).mkdir(parents=True, exist_ok=True)


def _place(source: Path, target: Path) -> bool:
    """Link or copy a file, never over another; return whether it was copied."""
    real = source.resolve()  # a link to an image becomes the image
    try:
        os.link(real, target)
        return False
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    with real.open("rb") as given, target.open("xb") as copy:
        shutil.copyfileobj(given, copy, 1 << 20)
    shutil.copystat(real, target)
    return True


def _case_clash(target: Path, name: str) -> DataError:
    return DataError(
        f"{target}: its file system takes {name} for another name, as if upper and lower case were the same. Rename "
        "one of the two, or choose a folder on another disk."
    )


def _check_room(source: Path, target: Path, names: Sequence[str]) -> None:
    """Raise a DataError if the images must be copied and do not fit."""
    there = existing(target.absolute())
    if source.stat().st_dev == there.stat().st_dev:
        return
    needed, free = sum((source / name).stat().st_size for name in names), shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"{target}: is on another file system than {source}, so {amount(needed)} must be copied, but only "
            f"{amount(free)} are free. Choose a folder next to {source}, which takes no space: images are linked there."
        )


def _explained(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return f"{target}: another program has just made it. Choose another folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{target}: no space left. Nothing was written; free some, or choose a folder on another disk."
    return f"{error.filename or target}: {error.strerror}. Nothing was written to {target}."
