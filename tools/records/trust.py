"""Read files of run folders from untrusted sources: no links out of them, no numbers that overflow."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from common.errors import ConfigError
from config.read import DEEPEST

LARGEST = 1e30  # of a figure; its fourth power is still a float
MOST_BYTES = 2**26  # of a file: a table of 100,000 classes takes a tenth
MOST = 100_000  # values on one level of a tree
DIGITS = 18  # of a whole number that is computed with; longer ones become floats


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from a file is a finite number of usable size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value from a file is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**DIGITS


def own_file(run: Path, name: str) -> Path:
    """Return the path of a run's file, or raise FileNotFoundError.

    ValueError if it or the folder is a link that leads out, it is not a file (a pipe would never end), or too large.
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


def read_own(
    run: Path, name: str, parse: Callable[[Path], Any], remarks: list[str], *, is_required: bool = False
) -> Any:
    """Parse a file of a run; return None if that fails, with a remark unless a file that is not required is missing."""
    try:
        return parse(own_file(run, name))
    except FileNotFoundError:
        remarks += [f"{name} is missing"] if is_required else []
    except (OSError, RuntimeError, ValueError, yaml.YAMLError, csv.Error) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
        remarks.append(f"{name} cannot be read ({reason})")
    return None


def real(folder: Path, within: Path | None = None) -> Path:
    """Resolve a folder that is a link, unless it leads out of `within` (None: it may lead anywhere)."""
    if not folder.is_symlink():
        return folder
    target = folder.resolve()
    return target if within is None or target.is_relative_to(within.resolve()) else folder


def check_tree(content: Any) -> None:
    """Check a parsed tree, which aliases may have made huge, for its depth, its size and whole numbers too long."""
    level = [content]
    for _ in range(DEEPEST):
        if any(isinstance(value, int) and abs(value) >= 10**DIGITS for value in level):
            raise ConfigError(f"it holds a whole number of more than {DIGITS} digits")
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        if sum(map(len, inner)) > MOST:
            raise ConfigError("it holds too much")
        level = [value for values in inner for value in values]
    if level:
        raise ConfigError("it is nested too deeply")


def mapping(path: Path) -> dict[str, Any]:
    """Parse a JSON object; ValueError if the file is damaged or holds something else."""
    text = path.read_text()
    content = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= DIGITS else float(digits))
    if not isinstance(content, dict):
        raise ConfigError(f"it holds a {type(content).__name__}, not keys")
    check_tree(content)
    return content
