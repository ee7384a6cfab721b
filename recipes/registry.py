"""Names in a YAML -> classes: algorithms, callbacks, loggers and optimizers, ours and Composer's.

Everything but `build` reads source text and imports neither torch nor Composer, so that a name or an argument that
does not exist is reported at once. A file recipes/algorithms/<name>.py (or recipes/callbacks/) is found by its name and
wins over Composer's.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common.annotations import describe, fits, literal
from common.errors import ConfigError
from common.suggest import did_you_mean, fold, listing
from recipes.refusals import Refusal, how_to_install

HERE = Path(__file__).parent
BASES = {"algorithm": "Algorithm", "callback": "Callback", "logger": "LoggerDestination", "optimizer": "Optimizer"}
PACKAGES = {
    "algorithm": "composer.algorithms",
    "callback": "composer.callbacks",
    "logger": "composer.loggers",
    "optimizer": "torch.optim",
}
CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.MULTILINE)
BY_EVENTS = ("callback", "logger")  # kinds that may refuse their arguments later, in the run
PROGRESS_BAR = "progress_bar"  # no class: the Trainer makes its own
ALIASES = {"comet": "cometml", "gradclipnorm": "gradientclipping"}


@dataclass(frozen=True)
class Entry:
    """A class that a name stands for: where it is, and its name in a YAML."""

    name: str
    class_name: str
    module: str
    file: Path


@functools.cache
def parse(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


@functools.cache
def classes(file: Path) -> dict[str, list[str]]:
    """The classes at the top level of a file with the last word of each base; by pattern, ten times as quick as ast."""
    found = {}
    for match in CLASS.finditer(file.read_text(encoding="utf-8")):
        found[match[1]] = [base.split("[")[0].split(".")[-1].strip() for base in (match[2] or "").split(",")]
    return found


@functools.cache
def imports(file: Path) -> dict[str, tuple[str, str]]:
    """What a file imports with `from module import name as alias`: alias -> (module, name)."""
    found = {}
    for node in parse(file).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{dotted(file, node.level)}.{node.module}" if node.level else node.module
            found.update({alias.asname or alias.name: (module, alias.name) for alias in node.names})
    return found


def dotted(file: Path, level: int) -> str:
    """The package that `level` leading dots mean in a file."""
    folder = file.parents[level - 1]
    parts = [folder.name]
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
        parts.insert(0, folder.name)
    return ".".join(parts)


def derives(file: Path, class_name: str, wanted: str) -> bool:
    """Whether a class derives from one named `wanted`, through any number of files."""
    for base in classes(file)[class_name]:
        if base == wanted:
            return True
        if base in classes(file):
            found = base != class_name and derives(file, base, wanted)
        else:
            target = resolve(*imports(file)[base]) if base and base in imports(file) else None
            found = target is not None and derives(target.file, target.class_name, wanted)
        if found:
            return True
    return False


@functools.cache
def locate(module: str) -> Path | None:
    """The source file of a module, found without importing it or its parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations)), *rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.exists() else None


def snake(class_name: str) -> str:
    """DecoupledSGDW -> decoupled_sgdw."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def own(kind: str) -> dict[str, Entry]:
    """Our classes of a kind, by folded name."""
    found = {}
    if kind in ("algorithm", "callback"):
        for file in sorted((HERE / f"{kind}s").glob("[!_]*.py")):
            named = [name for name in classes(file) if fold(name) == fold(file.stem)]
            derived = [name for name in classes(file) if derives(file, name, BASES[kind])]
            for name in (named or derived)[:1]:
                found[fold(file.stem)] = Entry(file.stem, name, f"recipes.{kind}s.{file.stem}", file)
    if kind == "optimizer" and (file := HERE / "optimizers.py").exists():
        for name in classes(file):
            if not name.startswith("_"):
                found[fold(name)] = Entry(snake(name), name, "recipes.optimizers", file)
    return found


def installed(kind: str) -> dict[str, Entry]:
    """The classes of a kind in the installed package, by folded class name."""
    init = locate(PACKAGES[kind])
    found: dict[str, Entry] = {}
    for class_name, (module, original) in imports(init).items() if init else ():
        entry = resolve(module, original)
        if entry is not None and derives(entry.file, entry.class_name, BASES[kind]):
            found[fold(class_name)] = entry
    return found


def resolve(module: str, class_name: str) -> Entry | None:
    """Follow re-exports from package to package to the file that defines a class."""
    file = locate(module)
    if file is None:
        return None
    if class_name in classes(file):
        stem = module.split(".")[-1].lstrip("_")
        name = stem.removesuffix("_logger") if module.startswith("composer.loggers") else stem
        return Entry(name, class_name, module, file)
    onward = imports(file).get(class_name)
    return resolve(*onward) if onward and onward[0] != module else None


@functools.cache
def table(kind: str) -> dict[str, Entry]:
    """Every folded spelling of every name of a kind."""
    found: dict[str, Entry] = {}
    for spelling, entry in {**installed(kind), **own(kind)}.items():
        stem = spelling.removesuffix("logger").removesuffix("callback")
        for word in {spelling, stem, fold(entry.name), fold(entry.class_name)}:
            found[word] = entry
    for alias, word in ALIASES.items():
        if word in found:
            found[alias] = found[word]
    return found


def names(kind: str) -> list[str]:
    """The names of a kind (algorithm, callback, logger or optimizer), sorted."""
    extra = {PROGRESS_BAR} if kind == "logger" else set()
    return sorted({entry.name for entry in table(kind).values()} | extra)


def canonical(kind: str, name: str) -> str:
    """The one spelling of a name, for blur_pool as for BlurPool; a name that does not exist comes back as it is."""
    entry = table(kind).get(fold(str(name)))
    return entry.name if entry else str(name)


def is_installed(kind: str, name: str) -> bool:
    """Whether a name stands for a class of the installed package, not one of ours."""
    entry = table(kind).get(fold(name))
    return entry is not None and entry.module.startswith(PACKAGES[kind])


@functools.cache
def signature(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The arguments of a class, read from its source; annotations are text, defaults that are no literals are None.

    Raises:
        KeyError: if there is no such name.
    """
    if kind == "logger" and fold(name) == fold(PROGRESS_BAR):
        return {}
    entry = table(kind)[fold(name)]
    return _parameters(entry.file, entry.class_name, skip={"params"} if kind == "optimizer" else set())


def _parameters(file: Path, class_name: str, skip: set[str]) -> dict[str, inspect.Parameter]:
    """The arguments of __init__, or of the nearest base class's."""
    node = next(node for node in parse(file).body if isinstance(node, ast.ClassDef) and node.name == class_name)
    init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if init is not None:
        return _from_ast(init.args, skip)
    for base in classes(file)[class_name]:
        if base in classes(file) and base != class_name:
            return _parameters(file, base, skip)
        target = resolve(*imports(file)[base]) if base in imports(file) else None
        if target is not None:
            return _parameters(target.file, target.class_name, skip)
    return {}


def _from_ast(arguments: ast.arguments, skip: set[str]) -> dict[str, inspect.Parameter]:
    """ast's arguments as inspect's parameters, without self."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*defaults, *arguments.defaults], strict=True)][1:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {}
    for arg, default in pairs:
        if arg.arg in skip:
            continue
        value = inspect.Parameter.empty if default is None else literal(default)
        note = ast.unparse(arg.annotation) if arg.annotation else inspect.Parameter.empty
        found[arg.arg] = inspect.Parameter(arg.arg, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=note)
    if arguments.kwarg:
        found[arguments.kwarg.arg] = inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD)
    return found


def check(kind: str, name: str, args: Mapping, where: str) -> list[str]:
    """What is wrong with a name and its arguments, as finished sentences.

    Args:
        kind: algorithm, callback, logger or optimizer.
        name: as the user wrote it.
        args: its arguments.
        where: the place in the configuration, as in algorithms.sam, with which each sentence begins.
    """
    if canonical(kind, name) not in names(kind):
        known = names(kind)
        return [f"{where}: {name!r} is no {kind}{did_you_mean(name, known)} (there are {listing(known)})"]
    parameters = signature(kind, name)
    problems = []
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known_args = [key for key, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for key, value in args.items():
        if key not in known_args:
            if not takes_any:
                meant = did_you_mean(str(key), known_args)
                problems.append(f"{where}.{key}: {name} has no such argument{meant} (it takes {listing(known_args)})")
        elif not fits(value, parameters[key].annotation):
            problems.append(f"{where}.{key}: {value!r} given, but it must be {describe(parameters[key].annotation)}")
    for key in known_args:
        if parameters[key].default is inspect.Parameter.empty and key not in args:
            problems.append(f"{where}.{key}: missing; {name} cannot be made without it")
    return problems


def build(kind: str, name: str, args: Mapping, *positional: object) -> Any:
    """Import the class that a name stands for and make it.

    Raises:
        ConfigError: if there is no such name, the class refuses its arguments, or a package that it needs is missing.
            A bug in a class of ours keeps its own exception, and so does an import that fails there.
    """
    # Composer's classes keep and copy their arguments: they get plain dictionaries and lists.
    args = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in args.items()}
    where = "optimizer" if kind == "optimizer" else f"{kind}s.{name}"
    problems = check(kind, name, args, where)
    entry = table(kind).get(fold(name))
    if problems or entry is None:
        raise ConfigError(*(problems or [f"{where}: is made by the Trainer, not by name"]))
    ours = entry.file.is_relative_to(HERE)
    try:
        cls = getattr(importlib.import_module(entry.module), entry.class_name)
        named = args if kind in BY_EVENTS else {}  # the others' own sentences begin with the argument
        with Refusal(where, named, f"{entry.class_name} refuses its arguments", ours=cls if ours else None):
            made = cls(*positional, **args)
    except ImportError as error:
        if ours:
            raise
        raise ConfigError(f"{where}: {how_to_install(error)}") from error
    if kind in BY_EVENTS:
        made.run_event = Refusal(where, args, f"{entry.class_name} stopped the run")(made.run_event)
    return made
