"""Map names in a YAML to classes: algorithms, callbacks, loggers and optimizers.

Everything except `build` and `load` reads source text and imports neither torch nor Composer, so that an unknown name
or argument is reported at once. A file recipes/algorithms/<name>.py (or recipes/callbacks/, recipes/loggers/) replaces
Composer's class of that name. `package.module:Class` is looked up on the user's path; it may also name a schedule, a
model or a storage.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.annotations import describe, fits
from common.errors import ConfigError
from common.outside import is_outside
from common.suggest import did_you_mean, fold, listing
from recipes import source
from recipes.refusals import how_to_install, refusal

HERE = Path(__file__).parent
BASES = {
    "algorithm": "composer.core:Algorithm",
    "callback": "composer.core:Callback",
    "logger": "composer.loggers:LoggerDestination",
    "optimizer": "torch.optim:Optimizer",
    "model": "torch.nn:Module",
    "storage": "loaders.dataset:ImageDataset",
}
"""Base class of each kind; a schedule is a function."""
PACKAGES = {
    "algorithm": "composer.algorithms",
    "callback": "composer.callbacks",
    "logger": "composer.loggers",
    "optimizer": "torch.optim",
}
OFFERED = {
    "schedule": ("step", "total", "warmup", "alpha_i", "alpha_f"),
    "model": ("num_classes",),
    "storage": ("pipeline", "path", "split", "seed", "local"),
}
"""Arguments that we pass to kinds that the user gives none: the first is required, the others are optional."""
PLACES = {"optimizer": "optimizer", "schedule": "scheduler.name", "model": "model.name", "storage": "storage"}
BY_EVENTS = ("callback", "logger")  # kinds that may reject their arguments later, during the run
PROGRESS_BAR = "progress_bar"  # not a class: the Trainer builds its own
ALIASES = {"comet": "cometml", "gradclipnorm": "gradientclipping"}


@dataclass(frozen=True)
class Entry:
    """A class, and its name in a YAML."""

    name: str
    class_name: str
    module: str
    file: Path | None  # None: its arguments are known only after an import


def snake(class_name: str) -> str:
    """DecoupledSGDW -> decoupled_sgdw."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def own(kind: str) -> dict[str, Entry]:
    """Return our classes of a kind, by folded name."""
    found = {}
    base = BASES[kind].split(":")[1]
    for file in sorted((HERE / f"{kind}s").glob("[!_]*.py")):
        named = [name for name in source.classes(file) if fold(name) == fold(file.stem)]
        derived = [name for name in source.classes(file) if source.derives(file, name, base)]
        for name in (named or derived)[:1]:
            found[fold(file.stem)] = Entry(file.stem, name, f"recipes.{kind}s.{file.stem}", file)
    for file in (HERE / "optimizers.py", HERE / "layerwise.py") if kind == "optimizer" else ():
        for name in source.classes(file):
            if not name.startswith("_"):
                found[fold(name)] = Entry(snake(name), name, f"recipes.{file.stem}", file)
    return found


def installed(kind: str) -> dict[str, Entry]:
    """Return the classes of a kind in the installed package, by folded class name."""
    init = source.locate(PACKAGES[kind])
    found: dict[str, Entry] = {}
    for class_name, (module, original) in source.imports(init).items() if init else ():
        place = source.resolve(module, original) if original else None
        if place is not None and source.derives(place.file, place.name, BASES[kind].split(":")[1]):
            stem = place.module.split(".")[-1].lstrip("_")
            name = stem.removesuffix("_logger") if kind == "logger" else stem
            found[fold(class_name)] = Entry(name, place.name, place.module, place.file)
    return found


@functools.cache
def table(kind: str) -> dict[str, Entry]:
    """Map every folded spelling of a kind's names to its class."""
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
    """Return the sorted names of a kind (algorithm, callback, logger or optimizer)."""
    extra = {PROGRESS_BAR} if kind == "logger" else set()
    return sorted({entry.name for entry in table(kind).values()} | extra)


def find(kind: str, name: str) -> Entry | None:
    """Return the class of a name; None if it is unknown. A path to nowhere or to another kind is a ConfigError."""
    if not is_outside(name):
        return table(kind).get(fold(name))
    module, _, attribute = name.partition(":")
    place = source.definition(module, attribute)
    if place is None:
        return Entry(name, attribute, module, None)
    is_class = place.name in source.classes(place.file)
    kinds = [k for k, base in BASES.items() if is_class and source.derives(place.file, place.name, base.split(":")[1])]
    if kinds and kind not in kinds:
        raise ConfigError(f"{attribute} is for {kinds[-1]}s, not for {kind}s")
    return Entry(name, place.name, place.module, place.file)


def exists(kind: str, name: str) -> bool:
    """Whether a kind has such a name."""
    try:
        return find(kind, name) is not None or (kind, name) == ("logger", PROGRESS_BAR)
    except ConfigError:
        return False


def canonical(kind: str, name: str) -> str:
    """Return the canonical spelling of a name, such as blurpool for BlurPool; unknown names come back unchanged."""
    entry = None if is_outside(str(name)) else table(kind).get(fold(str(name)))
    return entry.name if entry else str(name)


def is_installed(kind: str, name: str) -> bool:
    """Whether a name is a class of the installed package, not one of ours or the user's."""
    entry = table(kind).get(fold(name))
    return entry is not None and entry.module.startswith(PACKAGES[kind])


def signature(kind: str, name: str) -> source.Parameters:
    """Read the arguments of a class from its source, see source.parameters; a KeyError if the name is unknown."""
    if (kind, name) == ("logger", PROGRESS_BAR):
        return {}
    entry = find(kind, name)
    if entry is None:
        raise KeyError(name)
    if entry.file is None:
        return source.ANYTHING
    found = source.parameters(source.Definition(entry.module, entry.class_name, entry.file))
    return written(kind, found) if found is not source.ANYTHING else found


def written(kind: str, parameters: Mapping[str, inspect.Parameter]) -> source.Parameters:
    """Drop an optimizer's first argument, the model's parameters, which a YAML does not give."""
    return dict(list(parameters.items())[kind == "optimizer" :])


def check(kind: str, name: str, args: Mapping, where: str) -> list[str]:
    """Return an error message for each fault of a name and its arguments; each starts with `where`, their key."""
    try:
        found = signature(kind, name)
    except ConfigError as error:
        return [f"{where}: {error}"]
    except KeyError:
        known = names(kind)
        return [f"{where}: unknown {kind} {name!r}{did_you_mean(name, known)} (choose {listing(known)})"]
    return misfits(kind, name, found, args, where)


def misfits(kind: str, name: str, parameters: source.Parameters, args: Mapping, where: str) -> list[str]:
    """Return an error message for each argument that does not fit a signature."""
    known = [key for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    needed = [key for key in known if parameters[key].default is inspect.Parameter.empty and key not in args]
    if offered := OFFERED.get(kind, ()):
        surplus = [key for key in needed if key not in offered]
        if not takes_any and offered[0] not in known:
            return [f"{where}: {name} does not take {offered[0]}; a {kind} is called with {listing(offered)}"]
        return [f"{where}: {name} needs {key}; a {kind} is called with {listing(offered)}" for key in surplus]
    problems = []
    for key, value in args.items():
        if key not in known:
            if not takes_any:
                meant = did_you_mean(str(key), known)
                problems.append(f"{where}.{key}: {name} has no such argument{meant} (it takes {listing(known)})")
        elif not fits(value, parameters[key].annotation):
            problems.append(f"{where}.{key}: {value!r} given, but it must be {describe(parameters[key].annotation)}")
    return problems + [f"{where}.{key}: missing; {name} requires it" for key in needed]


def load(kind: str, name: str, args: Mapping, where: str) -> Any:
    """Import the class or function of a name; a ConfigError if the arguments do not fit it."""
    problems = check(kind, name, args, where)
    entry = None if problems else find(kind, name)
    if entry is None:
        raise ConfigError(*(problems or [f"{where}: is made by the Trainer, not by name"]))
    module = importlib.import_module(entry.module)
    if not is_outside(name):
        return getattr(module, entry.class_name)
    try:
        found = getattr(module, entry.class_name)
    except AttributeError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{where}: {name} is a {type(found).__name__}, not a class or a function")
    if isinstance(found, type):
        problems = not_of_kind(kind, name, found, where, issubclass)
    if not problems and signature(kind, name) is source.ANYTHING:  # the source did not show the arguments
        problems = misfits(kind, name, written(kind, inspect.signature(found).parameters), args, where)
    if problems:
        raise ConfigError(*problems)
    return found


def not_of_kind(kind: str, name: str, thing: Any, where: str, test: Callable[[Any, type], bool]) -> list[str]:
    """Return an error message if a class or an object is not of the kind that it is used as."""
    module, _, base = BASES.get(kind, "builtins:object").partition(":")
    fits_in = test(thing, getattr(importlib.import_module(module), base))
    return [] if fits_in else [f"{where}: {name} is not for {kind}s; it must be or return a {module}.{base}"]


def build(kind: str, name: str, args: Mapping, *positional: object) -> Any:
    """Import the class of a name and instantiate it; for a kind in OFFERED, with those of `args` that it takes.

    Raises:
        ConfigError: the name is unknown, the class rejects its arguments, or Composer's class needs a missing package.
            Bugs and failing imports in our own or the user's code keep their exception.
    """
    where = PLACES.get(kind, f"{kind}s.{name}")
    is_stock = not is_outside(name) and is_installed(kind, name)
    try:
        made_of = load(kind, name, args, where)
        if kind in OFFERED:
            made = made_of(*positional, **source.taken(made_of, args))
        else:
            named = args if kind in BY_EVENTS else {}  # messages of the other kinds start with the argument
            title = name if is_outside(name) else made_of.__name__
            with refusal(where, named, f"{title} rejects its arguments", ours=None if is_stock else made_of):
                # Some classes modify their arguments, and the configuration must not change.
                made = made_of(*positional, **copy.deepcopy(dict(args)))
    except ImportError as error:
        if not is_stock:
            raise
        raise ConfigError(f"{where}: {how_to_install(error)}") from error
    if is_outside(name) and (problems := not_of_kind(kind, name, made, where, isinstance)):
        raise ConfigError(*problems)
    if kind in BY_EVENTS and not is_outside(name):
        made.run_event = refusal(where, args, f"{made_of.__name__} stopped the run")(made.run_event)
    return made
