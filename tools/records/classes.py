"""Names for the classes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loaders.class_names import names_of
from tools.records.trust import mapping, read_own

FILE = "classes.json"  # in a run's folder


def run_names(run: Path, classes: Sequence[str], default: Sequence[str] | None = None) -> list[str]:
    """Return the names in a run's classes.json if it is about these classes; else `default`, else `names_of` them."""
    written = read_own(run, FILE, mapping, []) or {}
    names = written.get("names")
    if written.get("classes") == list(classes) and isinstance(names, list) and len(names) == len(classes):
        if all(isinstance(name, str) and name for name in names):
            return names
    return list(default or names_of(classes))
