"""Finding the word that was meant, for error messages."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable


def fold(word: str) -> str:
    """A word without case, underscores and hyphens, so that BlurPool, blur_pool and blurpool are one."""
    return word.lower().replace("_", "").replace("-", "")


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to `word`, or None when none is near."""
    folded = {fold(name): name for name in known}
    found = difflib.get_close_matches(fold(word), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?', or nothing when no known word is near."""
    match = closest(word, known)
    return f"; did you mean {match}?" if match else ""


def address_meant(path: str) -> str | None:
    """What was meant by s3:/bucket/folder, a folder of this disk, or by ~/folder in quotes; else None."""
    if path.startswith("~/") and not os.path.exists("~"):
        return os.path.expanduser(path)
    found = re.fullmatch(r"(s3|gs|oci):/?([^/].*)", path)
    return f"{found[1]}://{found[2]}" if found else None


def listing(words: Iterable[str]) -> str:
    """Words in a row, as a sentence lists them: 'a, b or c'."""
    words = list(words)
    if not words:
        return "nothing"
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
