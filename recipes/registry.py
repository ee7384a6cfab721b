"""Names in a YAML -> classes: algorithms, callbacks, loggers and optimizers, ours, Composer's and the user's own.

Everything but `build` and `load` reads source text and imports neither torch nor Composer, so that a name or an
argument that does not exist is reported at once. A file recipes/algorithms/<name>.py (or recipes/callbacks/,
recipes/loggers/) is found by its name and replaces Composer's. `package.module:Class` is found on the user's path,
and may stand for a schedule, a model or a storage too.
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
from recipes.refusals import Refusal, how_to_install

HERE = Path(__file__).parent
BASES = {
    "algorithm": "composer.core:Algorithm",
    "callback": "composer.core:Callback",
    "logger": "composer.loggers:LoggerDestination",
    "optimizer": "torch.optim:Optimizer",
    "model": "torch.nn:Module",
    "storage": "loaders.dataset:ImageDataset",
}
"""What the classes of a kind derive from; a schedule is a function."""
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
"""What we give to kinds whose arguments the user does not write: it takes the first, and what it likes of the rest."""
PLACES = {"optimizer": "optimizer", "schedule": "scheduler.name", "model": "model.name", "storage": "storage"}
BY_EVENTS = ("callback", "logger")  # kinds that may refuse their arguments later, in the run
PROGRESS_BAR = "progress_bar"  # no class: the Trainer makes its own
ALIASES = {"comet": "cometml", "gradclipnorm": "gradientclipping"}


@dataclass(frozen=True)
class Entry:
    """A class that a name stands for: where it is, and its name in a YAML."""

    name: str
    class_name: str
    module: str
    file: Path | None  # None: only an import can tell what it takes


def snake(class_name: str) -> str:
    """DecoupledSGDW -> decoupled_sgdw."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def own(kind: str) -> dict[str, Entry]:
    """Our classes of a kind, by folded name."""
    found = {}
    base = BASES[kind].split(":")[1]
    for file in sorted((HERE / f"{kind}s").glob("[!_]*.py")):
        named = [name for name in source.classes(file) if fold(name) == fold(file.stem)]
        derived = [name for name in source.classes(file) if source.derives(file, name, base)]
        for name in (named or derived)[:1]:
            found[fold(file.stem)] = Entry(file.stem, name, f"recipes.{kind}s.{file.stem}", file)
    if kind == "optimizer" and (file := HERE / "optimizers.py").exists():
        for name in source.classes(file):
            if not name.startswith("_"):
                found[fold(name)] = Entry(snake(name), name, "recipes.optimizers", file)
    return found


def installed(kind: str) -> dict[str, Entry]:
    """The classes of a kind in the installed package, by folded class name."""
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


def find(kind: str, name: str) -> Entry | None:
    """What a name stands for; None if there is no such name.

    Raises:
        ConfigError: it is a path that leads nowhere, or to a class of another kind.
    """
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
    """Whether a name stands for something of a kind."""
    try:
        return find(kind, name) is not None or (kind, name) == ("logger", PROGRESS_BAR)
    except ConfigError:
        return False


def canonical(kind: str, name: str) -> str:
    """The one spelling of a name, for blur_pool as for BlurPool; a name that does not exist comes back as it is."""
    entry = None if is_outside(str(name)) else table(kind).get(fold(str(name)))
    return entry.name if entry else str(name)


def is_installed(kind: str, name: str) -> bool:
    """Whether a name stands for a class of the installed package, not one of ours or the user's."""
    entry = table(kind).get(fold(name))
    return entry is not None and entry.module.startswith(PACKAGES[kind])


def signature(kind: str, name: str) -> source.Parameters:
    """The arguments of a class, read from its source; annotations are text, defaults that are not literals are None.

    Raises:
        KeyError: if there is no such name.
        ConfigError: if it is a path that leads nowhere.
    """
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
    """The arguments that a YAML gives: all but an optimizer's first one, the model's parameters."""
    return dict(list(parameters.items())[kind == "optimizer" :])


def check(kind: str, name: str, args: Mapping, where: str) -> list[str]:
    """What is wrong with a name and its arguments, as finished sentences.

    Args:
        kind: algorithm, callback, logger, optimizer, schedule, model or storage.
        name: as the user wrote it.
        args: its arguments.
        where: the place in the configuration, as in algorithms.sam, with which each sentence begins.
    """
    try:
        found = signature(kind, name)
    except ConfigError as error:
        return [f"{where}: {error}"]
    except KeyError:
        known = names(kind)
        return [f"{where}: {name!r} is no {kind}{did_you_mean(name, known)} (there are {listing(known)})"]
    return misfits(kind, name, found, args, where)


def misfits(kind: str, name: str, parameters: source.Parameters, args: Mapping, where: str) -> list[str]:
    """Arguments that do not fit a signature, as finished sentences."""
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
    return problems + [f"{where}.{key}: missing; {name} cannot be made without it" for key in needed]


def load(kind: str, name: str, args: Mapping, where: str) -> Any:
    """Import the class or function that a name stands for, checked against its arguments.

    Raises:
        ConfigError: if there is no such name, or its arguments are wrong.
    """
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
    if not problems and signature(kind, name) is source.ANYTHING:  # what could not be read is checked now
        problems = misfits(kind, name, written(kind, inspect.signature(found).parameters), args, where)
    if problems:
        raise ConfigError(*problems)
    return found


def not_of_kind(kind: str, name: str, thing: Any, where: str, test: Callable[[Any, type], bool]) -> list[str]:
    """The complaint about a class, or an object, that is not of the kind that it is used as."""
    module, _, base = BASES.get(kind, "builtins:object").partition(":")
    fits_in = test(thing, getattr(importlib.import_module(module), base))
    return [] if fits_in else [f"{where}: {name} is not for {kind}s; it must give a {module}.{base}"]


def build(kind: str, name: str, args: Mapping, *positional: object) -> Any:
    """Import the class that a name stands for and make it.

    Of a kind whose arguments the user does not write, `args` may hold more than the class takes.

    Raises:
        ConfigError: if there is no such name, the class refuses its arguments, or a package that it needs is missing.
            A bug in a class of ours or of the user's keeps its own exception, and so does an import that fails there.
    """
    where = PLACES.get(kind, f"{kind}s.{name}")
    is_stock = not is_outside(name) and is_installed(kind, name)
    try:
        made_of = load(kind, name, args, where)
        if kind in OFFERED:
            made = made_of(*positional, **source.taken(made_of, args))
        else:
            named = args if kind in BY_EVENTS else {}  # the others' own sentences begin with the argument
            title = name if is_outside(name) else made_of.__name__
            with Refusal(where, named, f"{title} refuses its arguments", ours=None if is_stock else made_of):
                # A copy: some classes change what they are given, and the configuration must stay as it is.
                made = made_of(*positional, **copy.deepcopy(dict(args)))
    except ImportError as error:
        if not is_stock:
            raise
        raise ConfigError(f"{where}: {how_to_install(error)}") from error
    if is_outside(name) and (problems := not_of_kind(kind, name, made, where, isinstance)):
        raise ConfigError(*problems)
    if kind in BY_EVENTS and not is_outside(name):
        made.run_event = Refusal(where, args, f"{made_of.__name__} stopped the run")(made.run_event)
    return made
