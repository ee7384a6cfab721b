"""Files of run folders, which may come from anybody: no link out of them, and no number that overflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from common.errors import ConfigError
from config.read import DEEPEST

LARGEST = 1e30  # more is no figure, and neither is what is not a number; its square's square is still a float
MOST_BYTES = 2**26  # of a file: a table of 100,000 classes takes a tenth
MOST = 100_000  # values on one level of a tree
DIGITS = 18  # of a whole number that is computed with; a longer one is as good as its float


def is_number(value: Any) -> TypeGuard[float]:
    """Whether something out of a file is a figure that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def is_count(value: Any) -> TypeGuard[int]:
    """Whether something out of a file counts things: a whole number above 0, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**DIGITS


def own_file(run: Path, name: str) -> Path:
    """A file of a run, whose folder may come from anybody.

    Args:
        run: the run's folder.
        name: the file's, from that folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it, or the folder, is a link that leads out, or it is not a file (reading a pipe would never end),
            or it is so large that reading it would take all memory.
    """
    path = run / name
    target = path.resolve(strict=True)
    if run.is_symlink() or not target.is_relative_to(run.resolve()):
        raise ValueError("a link that leads out of the run's folder is not followed")
    if not target.is_file():
        raise ValueError("it is not a file")
    if target.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return path


def real(folder: Path, within: Path | None = None) -> Path:
    """The folder that a link is for, or the link itself where it leads out of `within`: `own_file` follows no such one.

    Args:
        folder: a link or not.
        within: where the folder was found; None: the user typed it, and may mean any.
    """
    if not folder.is_symlink():
        return folder
    target = folder.resolve()
    return target if within is None or target.is_relative_to(within.resolve()) else folder


def check_tree(content: Any) -> None:
    """Refuse a tree that is too deep, too large once its aliases are followed, or has numbers of more than DIGITS.

    Raises:
        ConfigError: it is one; not even every text of such numbers can be made.
    """
    level = [content]
    for _ in range(DEEPEST):
        if any(isinstance(its, int) and abs(its) >= 10**DIGITS for its in level):
            raise ConfigError(f"it holds a whole number of more than {DIGITS} digits")
        inner = [its.values() if isinstance(its, dict) else its for its in level if isinstance(its, dict | list)]
        if sum(map(len, inner)) > MOST:
            raise ConfigError("it holds too much")
        level = [its for some in inner for its in some]
    if level:
        raise ConfigError("it is nested too deeply")


def mapping(text: str) -> dict[str, Any]:
    """The content of a JSON file from anybody: keys, and no whole number that overflows.

    Raises:
        ValueError: it is cut short, or anything else.
    """
    content = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= DIGITS else float(digits))
    if not isinstance(content, dict):
        raise ConfigError(f"it holds a {type(content).__name__}, not keys")
    check_tree(content)
    return content
