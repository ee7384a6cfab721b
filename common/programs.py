"""`python -m tools` and `python -m benchmarks`: list the programs of a package without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from common.output import take_any_text
from common.suggest import did_you_mean


def programs(package: Path) -> dict[str, str]:
    """Return the programs in a package's folder: name -> first sentence of the docstring."""
    summaries = {}
    for file in sorted([*package.glob("*.py"), *package.glob("*/__main__.py")]):
        text = file.read_text()
        if file.parent / file.name != package / "__main__.py" and '\nif __name__ == "__main__":' in text:
            name = file.stem if file.parent == package else file.parent.name
            paragraph = " ".join((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].split())
            summaries[name] = paragraph.partition(". ")[0].rstrip(".")
    return summaries


def run(package: Path, argv: Sequence[str] | None = None) -> int:
    """List the programs in a package's folder, or print how to start the one that is named; return the exit status."""
    take_any_text()
    summaries, words = programs(package), sys.argv[1:] if argv is None else list(argv)
    command = f"python -m {package.name}"
    if words and not words[0].startswith("-"):
        name, *more = words
        if name in summaries:
            print(
                f"{name}: join a program's name with a dot. Type: {' '.join([f'{command}.{name}', *more])}",
                file=sys.stderr,
            )
        else:
            print(f"{name}: no such program{did_you_mean(name, summaries) or '.'} Type: {command}", file=sys.stderr)
        return 2
    width = max(map(len, summaries))
    print(f"{command}.NAME --help explains each of these:\n")
    for name, sentence in summaries.items():
        print(f"  {name:<{width}}  {sentence}")
    return 0
