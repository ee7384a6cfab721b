"""Names in tables that people open in spreadsheets."""

from __future__ import annotations

import re

# What makes a formula of a cell, such as =HYPERLINK(...), also of full width and behind blanks; and what undoes that.
_FORMULA = re.compile(r"[\t\r]|\s*['=+\-@\uff0b\uff0d\uff1d\uff20]")


def as_cell(name: str) -> str:
    """A name for a cell of a CSV, with an apostrophe before what a spreadsheet would take for a formula and run."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(cell: str) -> str:
    """The name that `as_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
