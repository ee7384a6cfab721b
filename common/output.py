"""Printing to terminals and pipes with limited encodings."""

from __future__ import annotations

import io
import re
import sys

# Also the marks that reverse the direction of what follows.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def take_any_text() -> None:
    """Make stdout escape characters that its encoding lacks, as stderr does by default, instead of raising."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """Return text with control characters escaped: a name in a stranger's data must not act on the terminal.

    Line breaks and tabs stay.
    """
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
