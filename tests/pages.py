"""Parse the README and docs/: fenced blocks, commands, table rows."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
UPDATE = "UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/test_recipe_files.py tests/test_docs.py"
"""Writes what is derived from the code: golden traces, tables of the docs, and rows of published figures."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's fenced blocks in a language."""
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def commands(page: Path) -> list[str]:
    """Return the commands in a page's bash blocks, with continuation lines joined and comments removed."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def cells(heading: str, page: Path = README) -> list[list[str]]:
    """Return the table rows under a heading of a page, without the header row."""
    section = page.read_text().partition(f"# {heading}\n")[2].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def check_table(page: Path, heading: str, rows: Sequence[Sequence[str]], number: int = 0) -> None:
    """Compare a table of a page with rows made from the code, the header first; UPDATE_GOLDEN=1 writes them instead.

    `number` counts the tables under the heading.
    """
    text = page.read_text()
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"{page.name} has no heading {heading!r}"
    place = list(re.finditer(r"^\|.*\n(?:\|.*\n)*", section[1], re.MULTILINE))[number]
    header, *others = [f"| {' | '.join(row)} |\n" for row in rows]
    table = f"{header}|{'---|' * len(rows[0])}\n{''.join(others)}"
    if os.environ.get("UPDATE_GOLDEN"):
        start = section.start(1)
        page.write_text(text[: start + place.start()] + table + text[start + place.end() :])
    else:
        assert place[0] == table, f"{page.name}, {heading}: type {UPDATE}; read the diff"
