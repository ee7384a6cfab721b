"""What is printed, on a terminal or into a pipe whose encoding may lack some of it."""

from __future__ import annotations

import io
import sys


def take_any_text() -> None:
    """Let stdout escape what its encoding lacks, as stderr does from the start, in place of an exception."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
