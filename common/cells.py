"""Writing a file whole or not at all, and names into tables that people open in spreadsheets."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

# What makes a formula of a cell, such as =HYPERLINK(...), also of full width and behind blanks; and what undoes that.
_FORMULA = re.compile(r"[\t\r]|\s*['=+\-@\uff0b\uff0d\uff1d\uff20]")


def as_cell(name: str) -> str:
    """A name for a cell of a CSV, with an apostrophe before what a spreadsheet would take for a formula and run."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(cell: str) -> str:
    """The name that `as_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def write_whole(file: Path, content: bytes) -> None:
    """Replace a file by another content at once, or not at all; its permissions stay."""
    file = file.resolve()  # a link stays one
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(content)
        os.chmod(temporary, file.stat().st_mode & 0o777 if file.exists() else 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
