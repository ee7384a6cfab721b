"""Printing to terminals and pipes with limited encodings."""

from __future__ import annotations

import io
import sys


def take_any_text() -> None:
    """Make stdout escape characters that its encoding lacks, as stderr does by default, instead of raising."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
