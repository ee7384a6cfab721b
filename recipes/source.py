"""Read the classes of a module, their bases and their arguments from its source, without importing it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.annotations import literal
from common.errors import ConfigError
from common.suggest import did_you_mean, listing

ROOT = Path(__file__).parent.parent
CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.MULTILINE)
Parameters = dict[str, inspect.Parameter]
ANYTHING: Parameters = {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}
"""Stands for arguments that are known only after an import."""


class Definition(NamedTuple):
    """A class or function and the file that defines it."""

    module: str
    name: str
    file: Path


class _Unread(Exception):
    """The arguments of a class cannot be read from its source."""


@functools.cache
def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def node_of(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef:
    """Return the syntax tree of a file's class or function."""
    return next(n for n in parse(file).body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)


@functools.cache
def classes(file: Path) -> dict[str, list[str]]:
    """Return the top-level classes of a file with their bases; a pattern is ten times as fast as ast."""
    found = {}
    for match in CLASS.finditer(file.read_text(encoding="utf-8")):
        found[match[1]] = [base.split("[")[0].strip() for base in (match[2] or "").split(",") if "=" not in base]
    return found


@functools.cache
def imports(file: Path) -> dict[str, tuple[str, str]]:
    """Map each name that a file imports to (module, name in it; empty for the module itself)."""
    found = {}
    for node in parse(file).body:
        if isinstance(node, ast.ImportFrom):
            package = package_of(file, node.level) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            found.update({alias.asname or alias.name: (module, alias.name) for alias in node.names})
        elif isinstance(node, ast.Import):
            # `import a.b` binds a, `import a.b as c` binds a.b
            found.update({a.asname or a.name.split(".")[0]: (a.name if a.asname else "", "") for a in node.names})
    return found


def package_of(file: Path, level: int) -> str:
    """Return the package that `level` leading dots refer to in a file."""
    folder = file.parents[level - 1]
    parts = [folder.name]
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
        parts.insert(0, folder.name)
    return ".".join(parts)


def locate(module: str) -> Path | None:
    """Find the source file of a module without importing it or its parents; None if it has none."""
    return _located(module, os.getcwd())


@functools.cache
def _located(module: str, _working_folder: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module without a spec, as __main__ is
        return None
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") and not rest else None
    for location in spec.submodule_search_locations:
        path = Path(location, *rest)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.exists():
                return file
    return None


def resolve(module: str, name: str) -> Definition | None:
    """Follow re-exports to the file that defines a class."""
    file = locate(module)
    if file is None:
        return None
    if name in classes(file):
        return Definition(module, name, file)
    onward = imports(file).get(name)
    return resolve(*onward) if onward and onward[0] != module else None


def base_of(file: Path, base: str) -> Definition | None:
    """Find the definition of a base class from its spelling in a file; None if it cannot be found."""
    if base in classes(file):
        return Definition(file.stem, base, file)
    first, *rest = base.split(".")
    if first not in imports(file):
        return None
    module, name = imports(file)[first]
    *path, last = [part for part in (module or first, name, *rest) if part]
    return resolve(".".join(path), last)


def derives(file: Path, class_name: str, wanted: str) -> bool:
    """Whether a class derives from one named `wanted`, across files."""
    for base in classes(file)[class_name]:
        if base.split(".")[-1] == wanted:
            return True
        found = base_of(file, base) if base != class_name else None
        if found is not None and derives(found.file, found.name, wanted):
            return True
    return False


def definition(module: str, name: str) -> Definition | None:
    """Find the definition of a class or function; None if only an import could, a ConfigError if it does not exist."""
    here = os.getcwd()
    if here not in sys.path:  # after this checkout and before installed packages
        sys.path.insert(sys.path.index(str(ROOT)) + 1 if str(ROOT) in sys.path else 0, here)
    file = locate(module)
    if file is None:
        _require_module(module)
        return None
    tree = parse(file)
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if name in assigned:
        return None
    if name in defined:
        return Definition(module, name, file)
    if name in imports(file):
        origin, original = imports(file)[name]
        return definition(origin, original) if original else None
    nested = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name in nested or {"*", "__getattr__"} & {*imports(file), *defined}:
        return None
    if inside := _below(module, file, name):
        raise ConfigError(f"{file} has no {name}; did you mean {inside}:{name}?")
    known = defined or [word for word in imports(file) if not word.startswith("_")]
    raise ConfigError(f"{file} has no {name}{did_you_mean(name, known)} (it has {listing(known)})")


def _below(package: str, file: Path, name: str) -> str | None:
    """Return the first module of a package, from the top, that defines a class or function; `file` is the package's."""
    pattern = re.compile(rf"^(?:class|def) {re.escape(name)}\b".encode(), re.MULTILINE)
    files = file.parent.rglob("[!_]*.py") if file.name == "__init__.py" else ()
    for path in sorted(files, key=lambda path: (len(path.parts), path)):
        if pattern.search(path.read_bytes()):
            return ".".join([package, *path.relative_to(file.parent).with_suffix("").parts])
    return None


def _require_module(module: str) -> None:
    """Raise a ConfigError for a module that cannot be imported, neither from source nor otherwise."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        return
    if spec is None:
        raise ConfigError(f"no module {top}, neither in {os.getcwd()} nor installed")
    folders = [Path(location, *rest).parent for location in spec.submodule_search_locations or ()]
    if rest and not any(True for folder in folders for _ in folder.glob(f"{rest[-1]}.*")):
        known = [file.stem for folder in folders for file in sorted(folder.glob("[!_]*.py"))]
        raise ConfigError(f"no module {module}{did_you_mean(rest[-1], known)}")


def parameters(place: Definition) -> Parameters:
    """Read the arguments of a class or function; annotations are text, defaults that are not literals are None."""
    node = node_of(place.file, place.name)
    if isinstance(node, ast.FunctionDef):
        return _from_ast(node.args)
    try:
        arguments = _init(place)
    except _Unread:
        return ANYTHING
    found = _from_ast(arguments) if arguments else {}
    return dict(list(found.items())[1:])  # without self


def _init(place: Definition) -> ast.arguments | None:
    """Return the arguments of a class's __init__, which may be inherited.

    Raises:
        _Unread: a decorator may generate an __init__, as dataclass does, or a base class cannot be found.
    """
    node = node_of(place.file, place.name)
    assert isinstance(node, ast.ClassDef)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item.args
    if node.decorator_list:
        raise _Unread
    for base in (ast.unparse(base).split("[")[0] for base in node.bases):
        found = base_of(place.file, base) if base not in ("object", place.name) else None
        if found is None and base != "object":
            raise _Unread
        if found is not None and (arguments := _init(found)) is not None:
            return arguments
    return None


def _from_ast(arguments: ast.arguments) -> Parameters:
    """Convert ast arguments to inspect parameters."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*defaults, *arguments.defaults], strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {}
    for arg, default in pairs:
        value = inspect.Parameter.empty if default is None else literal(default)
        note = ast.unparse(arg.annotation) if arg.annotation else inspect.Parameter.empty
        found[arg.arg] = inspect.Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=note)
    if arguments.kwarg:
        found[arguments.kwarg.arg] = inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD)
    return found


def taken(function: Callable[..., object], offered: Mapping) -> dict[str, Any]:
    """Select the offered arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {key: value for key, value in offered.items() if takes_any or key in parameters}
