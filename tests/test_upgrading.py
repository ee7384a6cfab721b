"""docs/upgrading.md lists every private name of another package that the product uses, and each exists."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes import source
from tests.pages import ROOT

PAGE = ROOT / "docs" / "upgrading.md"
PRODUCT = ("main.py", "model.py", "data.py", "common", "config", "loaders", "recipes", "training", "tools", "launch")
FILES = [file for name in PRODUCT for file in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))]
DOCUMENTED = {"_exit", "_fields", "_fields_", "excepthook", "MAX_IMAGE_PIXELS"}  # documented by Python and Pillow
ROWS = {
    name: (re.findall(r"`([\w/.]+\.py)`", where), why)
    for name, where, why in re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.AST) -> set[str]:
    """Return the members of all classes in a tree, including attributes set on self and cls."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            for item in node.body:
                targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") else set()
    return found


@functools.cache
def ours() -> set[str]:
    return {name for file in FILES for name in defined(source.parse(file))}


def is_foreign(module: str) -> bool:
    top = module.split(".")[0]
    return not (ROOT / top).is_dir() and not (ROOT / f"{top}.py").is_file()


def members_of_bases(file: Path, name: str) -> Iterator[str]:
    """Yield the members of a class's base classes that belong to other packages."""
    for base in source.classes(file)[name]:
        place = source.base_of(file, base) if base and base != name else None
        if place is None or place.name not in source.classes(place.file):
            continue
        if "site-packages" in place.file.parts:
            body = next(node for node in source.parse(place.file).body if getattr(node, "name", "") == place.name)
            yield from defined(body)
        yield from members_of_bases(place.file, place.name)


def used(file: Path) -> Iterator[str]:
    """Yield the last component of each private name of other packages that a file uses, imports or overrides."""
    tree = source.parse(file)
    foreign = {name for name, (module, _) in source.imports(file).items() if is_foreign(module or name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in ours():
            yield node.attr
        if isinstance(node, ast.ImportFrom) and is_foreign(str(node.module)):
            yield from (alias.name for alias in node.names if is_private(alias.name))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("getattr", "pop", "update"):
            words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            words += [keyword.arg for keyword in node.keywords if keyword.arg]
            yield from (word for word in words if is_private(word) and word not in ours())
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute):
                if target.attr == "__class__" or (isinstance(target.value, ast.Name) and target.value.id in foreign):
                    yield target.attr
    for name in source.classes(file):
        members = set(members_of_bases(file, name))
        body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        yield from (member for member in defined(body) & members if is_private(member))
        selfs = (n for n in ast.walk(body) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
        yield from (n.attr for n in selfs if n.value.id == "self" and is_private(n.attr) and n.attr in members)


def test_every_private_name_is_on_the_page() -> None:
    uses = {(name, str(file.relative_to(ROOT))) for file in FILES for name in used(file) if name not in DOCUMENTED}
    listed = {(name.split(".")[-1], file) for name, (files, _) in ROWS.items() for file in files}
    assert len(uses) > 15, "too few private names found"
    assert not uses - listed, "add a row to docs/upgrading.md for each, or another file to its row"


def test_what_counts_as_a_private_name(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "import atexit\nfrom torch.nn.modules.batchnorm import _NormBase as Base\n"
        "from torch.utils.data import DataLoader\nfrom recipes.registry import _ours\natexit.register = print\n"
        "class Own(DataLoader):\n    def _get_iterator(self): return self._iterator\n"
        "def use(trainer): return trainer._rng_state, getattr(trainer, '_engine')\n"
    )
    expected = {"register", "_NormBase", "_get_iterator", "_iterator", "_rng_state", "_engine"}
    assert set(used(file)) == expected


@pytest.mark.parametrize("name", ROWS)
def test_every_name_on_the_page_exists(name: str) -> None:
    """In the installed packages; instance attributes in the source of their class."""
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            found = importlib.import_module(".".join(parts[:at]))
            break
    for part in parts[at:]:
        if not hasattr(found, part):
            modules = {kind.__module__ for kind in found.__mro__} if isinstance(found, type) else {found.__name__}
            files = [inspect.getsourcefile(sys.modules[module]) for module in modules - {"builtins"}]
            text = "".join(Path(file).read_text() for file in files if file)
            assert re.search(rf"\b{part}\b", text), f"{name} does not exist any more"
            return
        found = getattr(found, part)


@pytest.mark.parametrize("name", ROWS)
def test_every_name_on_the_page_is_used(name: str) -> None:
    files, why = ROWS[name]
    assert files and why
    for file in files:
        assert re.search(rf"\b{name.split('.')[-1]}\b", (ROOT / file).read_text()), f"{file} does not use {name}"
