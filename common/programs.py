"""`python -m tools` and `python -m benchmarks`: list the programs of a package without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from common.output import take_any_text
from common.suggest import did_you_mean


def programs(package: Path) -> dict[str, str]:
    """The programs of a package's folder: name -> first sentence of its docstring."""
    found = {}
    for file in sorted([*package.glob("*.py"), *package.glob("*/__main__.py")]):
        text = file.read_text()
        if file.parent / file.name != package / "__main__.py" and '\nif __name__ == "__main__":' in text:
            name = file.stem if file.parent == package else file.parent.name
            paragraph = " ".join((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].split())
            found[name] = paragraph.partition(". ")[0].rstrip(".")
    return found


def run(package: Path, argv: Sequence[str] | None = None) -> int:
    """List a package's programs, or say how the one that is named is started; the exit status.

    Args:
        package: the folder of the package.
        argv: the words of the command line; None takes the process's own.
    """
    take_any_text()
    found, words = programs(package), sys.argv[1:] if argv is None else list(argv)
    command = f"python -m {package.name}"
    if words and not words[0].startswith("-"):
        name, *more = words
        if name in found:
            print(
                f"{name}: a program is named after a dot. Type: {' '.join([f'{command}.{name}', *more])}",
                file=sys.stderr,
            )
        else:
            print(f"{name}: no such program{did_you_mean(name, found) or '.'} Type: {command}", file=sys.stderr)
        return 2
    width = max(map(len, found))
    print(f"{command}.NAME --help explains each of these:\n")
    for name, sentence in found.items():
        print(f"  {name:<{width}}  {sentence}")
    return 0
