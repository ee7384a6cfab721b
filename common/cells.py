"""Escape names for CSV files that are opened in spreadsheets."""

from __future__ import annotations

import re

# The start of a formula such as =HYPERLINK(...), also full-width or after blanks, and the apostrophe that escapes it.
_FORMULA = re.compile(r"[\t\r]|\s*['=+\-@\uff0b\uff0d\uff1d\uff20]")


def as_cell(name: str) -> str:
    """Return a name for a CSV cell, prefixed with an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{name}" if _FORMULA.match(name) else name


def from_cell(cell: str) -> str:
    """Return the name that `as_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell
