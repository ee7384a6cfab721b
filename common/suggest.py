"""Suggest the closest match in error messages."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


def fold(word: str) -> str:
    """Normalize case, underscores and hyphens, so that BlurPool, blur_pool and blurpool are equal."""
    return word.lower().replace("_", "").replace("-", "")


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to `word`; None if none is close."""
    folded = {fold(name): name for name in known}
    matches = difflib.get_close_matches(fold(word), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return '; did you mean X?', or '' if no known word is close."""
    match = closest(word, known)
    return f"; did you mean {match}?" if match else ""


def address_meant(path: str) -> str | None:
    """Return what was meant by s3:/bucket/folder (with one slash) or a quoted ~/folder; otherwise None."""
    if path.startswith("~/") and not os.path.exists("~"):
        return os.path.expanduser(path)
    match = re.fullmatch(r"(s3|gs|oci):/?([^/].*)", path)
    return f"{match[1]}://{match[2]}" if match else None


def listing(words: Iterable[str]) -> str:
    """Join words for a sentence: 'a, b or c'."""
    *others, last = list(words) or ["nothing"]
    return f"{', '.join(others)} or {last}" if others else last
