"""Imports: any module may be imported first, and packages import only what the design allows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Other packages stay imported, and our bytecode is cached: 200 fresh interpreters would take minutes.
EACH_FIRST = """
import functools, importlib, sys
from importlib.machinery import SourceFileLoader

SourceFileLoader.get_code = functools.cache(SourceFileLoader.get_code)
names = sys.argv[1:]
for name in names:
    for known in [known for known in sys.modules if known in names]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    tops = [top for top in ROOT.iterdir() if top.suffix == ".py" or (top / "__init__.py").exists()]
    files = [file.relative_to(ROOT) for top in tops for file in (top.rglob("*.py") if top.is_dir() else [top])]
    names = sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)
    names.remove("tools.export.alone.app")  # imports what an export puts next to it; tests/tools/test_space.py runs it
    assert {"main", "config", "recipes.topologies", "tools.verify"} <= set(names)
    command = [sys.executable, "-c", EACH_FIRST, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a file's tree imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_tests_are_collected_without_boto3_and_moto() -> None:
    """On a machine without them, tests that need no store run; tests/s3.py imports boto3 when it is used."""
    for file in (ROOT / "tests").rglob("*.py"):
        top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not imported(ast.Module(top, [])) & {"boto3", "botocore", "moto"}, file


PROGRAMS = ("benchmarks", "main", "tools")


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("common", ("config", "data", "launch", "loaders", "model", "recipes", "training", *PROGRAMS)),
        ("config", ("composer", "data", "model", "torch", "training", *PROGRAMS)),
        ("recipes", ("data", "model", "training", *PROGRAMS)),
        ("loaders", ("data", "model", "recipes", "training", *PROGRAMS)),
        ("training", ("launch", *PROGRAMS)),
        ("tools", ("benchmarks",)),
    ],
)
def test_packages_import_only_what_they_may(room: str, forbidden: tuple[str, ...]) -> None:
    """Only a program's __main__.py may start runs."""
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in (ROOT / room).rglob("*.py")
        for name in imported(ast.parse(file.read_text())) & set(forbidden)
    }
    assert not found
