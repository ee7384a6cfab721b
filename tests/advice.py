"""Follow the advice of an error message literally, as its reader would."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ASSIGNMENT = r"[a-z_]+(?:\.[a-z_0-9]+)*=(?:'[^']*'|[^\s,;)]+)"
COMMAND = re.compile(rf"(?<![\w.=/-]){ASSIGNMENT}(?: {ASSIGNMENT})*")
VERB = re.compile(r"\b(?:type|set|say|give|use|add|as in|by|or)\b", re.IGNORECASE)
MEANT = re.compile(r"did you mean ([^?\s]+)\?")
FIELD = "\0"


def alternatives(problem: str) -> list[list[str]]:
    """Return the groups of words that a message says to type; the words of one group belong together.

    `a->b` replaces a word or a key; `a=b` replaces a value or adds a word.
    """
    given, _, advice = re.sub(r" [\[(](?:command line|in |from )[^()\[\]]*[\])]$", "", problem).partition(": ")
    if meant := MEANT.search(advice):
        inside = re.search(r"\bno such argument\b|^unknown (?:algorithm|callback|logger)\b", advice)
        if (advice.startswith("unknown ") and not inside) or "://" in meant[1]:
            return [[f"{given}={meant[1]}"]]
        return [[f"{given}->{given.rpartition('.')[0]}.{meant[1]}" if inside else f"{given}->{meant[1]}"]]
    start = VERB.search(advice)
    said = advice[start.end() :] if start else ""
    instead = f"{given}->" if re.search("not of the form|is not a key;", advice) else ""
    return [[instead + word.rstrip(".") for word in match[0].split(" ")] for match in COMMAND.finditer(said)]


def applied(words: list[str], advice: list[str]) -> list[str]:
    """Return the command line after following the advice; a new value for a key replaces the old one."""
    words = list(words)
    for word in advice:
        old, arrow, new = word.partition("->")
        if arrow:
            words = [re.sub(rf"^{re.escape(old)}(?=[.=]|$)", new, one) for one in words]
            continue
        word = word.replace("'", "")  # as the shell does
        key = word.split("=")[0]
        old_ones = [one for one in words if one.split("=")[0] == key or one.startswith(f"{key}.")]
        place = words.index(old_ones[0]) if old_ones else len(words)
        words[place:] = [word, *(one for one in words[place:] if one not in old_ones)]
    return words


def sentences(*folders: str) -> dict[str, re.Pattern[str]]:
    """Return every text in the product's source that says to type something: location -> pattern of its messages.

    Args:
        folders: packages or files, relative to the root.
    """
    files = [
        file for name in folders for file in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    ]
    found = {}
    for file in sorted(files):
        tree = ast.parse(file.read_text())
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = _text(node)
            outer = isinstance(node, ast.JoinedStr) or id(node) not in inner
            if text and outer and id(node) not in prose and " " in text.strip() and _advises(text):
                parts = (re.escape(part) for part in text.split(FIELD))
                found[f"{file.relative_to(ROOT)}: {text.replace(FIELD, '...')}"] = re.compile(".*".join(parts), re.S)
    return found


def _text(node: ast.AST) -> str | None:
    """Return a literal's text, with FIELD in place of interpolated values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else FIELD for part in node.values)
    return None


def _advises(text: str) -> bool:
    start = VERB.search(text)
    said = text[start.end() :] if start else ""
    return bool(re.search(rf"(?<![\w.=/-]){ASSIGNMENT}|[\w{FIELD}]\.?[a-z_]+=|python -m |pip install", said))
