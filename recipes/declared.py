"""What an algorithm or an optimizer declares about itself, and whether arguments and a run keep to it. No torch.

The declarations are literals in the class: a configuration is held to them as they stand in the source, which nothing
has to import for that. A class that is made from Python holds its own arguments to them.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from common.durations import UNITS, Duration, parse
from common.outside import is_outside
from common.suggest import did_you_mean, listing
from recipes import registry, source
from recipes.algorithms._composers import DECLARED

Bound = str | tuple[str, ...]
LIMIT = re.compile(r"\b(from|at least|more than|to|at most|less than) (-?\d+(?:\.\d+)?)")
HOLDS = {
    "from": operator.ge,
    "at least": operator.ge,
    "more than": operator.gt,
    "to": operator.le,
    "at most": operator.le,
    "less than": operator.lt,
}
STOCK = {package.split(".")[0] for package in registry.PACKAGES.values()}  # they declare nothing, and take time to read


class Declarations:
    """The vocabulary. Every word is optional, and its value is a literal.

    An expression is Python's, over the arguments of the class (a time has `.value` and `.unit`), `config` (the whole
    run) and `duration` (reads a time).
    """

    BOUNDS: ClassVar[Mapping[str, Bound]] = {}
    """Argument -> what it can be. A text is shown as it stands and must hold limits: `from 0 to 1`, `at least 1 pixel`,
    `more than 0 and less than 1`, of each number in a list. If it ends in units (`at least 1, in ba or ep`), it is of a
    time; a number without a unit is in dur. A tuple lists the words that are allowed; `package.module:NAME` names where
    they are listed, in a module that imports no torch. null is left to the annotation."""
    RULES: ClassVar[Mapping[str, str]] = {}
    """Expression that must hold beyond that -> what to say if it does not, with {argument} filled in. It may begin with
    an argument or a dotted key of the run that it is about, as in `drop_rate: must be 0`. A rule about `config` is left
    alone where there is no run."""
    NOT_WITH: ClassVar[Mapping[str, str]] = {}
    """Algorithms that do not go with it -> why: what they do, or would do."""
    BEFORE: ClassVar[Mapping[str, str]] = {}
    """Algorithms that must come later in the list -> why, as in `which else smooths ...`."""
    NEEDS: ClassVar[Mapping[str, str]] = {}
    """Algorithms without which it is wrong -> why."""
    PER_IMAGE: ClassVar[str] = "False"
    """An expression: whether it has an `image_transform`, for which the loader must handle single images."""
    IMAGE_SIZE: ClassVar[str] = ""
    """`package.module:function` of (elapsed, crop_size, and arguments of the class by name): the pixels trained on."""
    PROTOCOL: ClassVar[str] = ""
    """What published figures call an evaluation with it, as in `EMA`: only figures that say so compare with its run."""
    NO_LR_FIND: ClassVar[str] = ""
    """Why the learning-rate finder leaves it out."""


WORDS = tuple(name for name in vars(Declarations) if name.isupper())


class Declares(Declarations):
    """A class whose arguments are checked before it is made.

    Raises:
        ValueError: an argument that breaks a declaration.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject declarations that could never be kept.

        Raises:
            TypeError: an argument that does not exist, or a text without limits.
        """
        super().__init_subclass__(**kwargs)
        known, words = set(inspect.signature(cls.__init__).parameters), vars(cls)
        for name, bound in words.get("BOUNDS", {}).items():
            if name not in known:
                raise TypeError(f"{cls.__name__}.BOUNDS: there is no argument {name}{did_you_mean(name, known)}")
            if isinstance(bound, str) and not (LIMIT.search(bound) or ":" in bound):
                raise TypeError(f"{cls.__name__}.BOUNDS: {bound!r} holds no limit; use {listing(HOLDS)}, and a number")
        for expression in (*words.get("RULES", {}), words.get("PER_IMAGE", "False")):
            for name in _names(expression) - {"config", "duration"} - known:
                raise TypeError(f"{cls.__name__}: {expression!r} uses {name}, which is not an argument of the class")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments; nothing where there are none, as in a copy or with the defaults."""
        if args or kwargs:
            given = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs)
            given.apply_defaults()
            for place, sentence in faults(cls, given.arguments):
                raise ValueError(f"{place}: {sentence}" if place else sentence)
        return super().__new__(cls)


def _names(expression: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)}


def units(bound: Bound) -> list[str]:
    """The units of a bound that is of a time; none of any other."""
    ends = re.split(", | or ", bound.rpartition(", in ")[2]) if isinstance(bound, str) else []
    return [word for word in ends if word in UNITS]


def _time(value: Any) -> Duration:
    return parse(value) if isinstance(value, str) else Duration(value, "dur")


def misfit(bound: Bound, value: Any) -> str:
    """What is wrong with a value that is not null, in a sentence; nothing if it keeps to the bound."""
    if isinstance(bound, str) and is_outside(bound):
        bound = tuple(pkgutil.resolve_name(bound))
    if isinstance(bound, tuple):
        there = f"there is no {value!r}{did_you_mean(str(value), bound)} (there are {listing(bound)})"
        return "" if value in bound else there
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if allowed := units(bound):
        try:
            time = _time(value)
        except ValueError as error:
            return str(error)
        numbers = [time.value] if time.unit in allowed else [float("nan")]
    if all(HOLDS[word](number, float(limit)) for word, limit in LIMIT.findall(bound) for number in numbers):
        return ""
    return f"{value!r} given, but it must be {bound}"


def holds(expression: str, names: Mapping[str, Any]) -> bool:
    """Whether an expression is true."""
    return bool(eval(expression, {"__builtins__": {}, **names}))


def faults(declared: type[Declarations], arguments: Mapping[str, Any], config: Any = None) -> Iterator[tuple[str, str]]:
    """What breaks the bounds, or else the rules: place ("" for the class itself) and sentence.

    Args:
        declared: a class, or what was read of one.
        arguments: all of its arguments, of the right types.
        config: the run, if there is one.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    found = [(name, misfit(bound, given[name])) for name, bound in declared.BOUNDS.items() if name in given]
    if wrong := [(name, sentence) for name, sentence in found if sentence]:
        yield from wrong
        return
    times = {name: _time(given[name]) for name, bound in declared.BOUNDS.items() if name in given and units(bound)}
    names = {**arguments, **times, "duration": parse} | ({} if config is None else {"config": config})
    for expression, text in declared.RULES.items():
        try:
            broken = _names(expression) <= names.keys() and not holds(expression, names)
        except ValueError:
            continue  # a duration of the run that cannot be read, about which there is a complaint already
        if broken:
            about = re.match(r"([\w.]+): ", text)
            yield about[1] if about else "", text[about.end() if about else 0 :].format_map(names)


@functools.cache
def declarations(kind: str, name: str) -> type[Declarations]:
    """What the class that a name stands for declares, read from its source; nothing for a name that does not exist.

    Composer's own algorithms are declared in recipes/algorithms/_composers.py.
    """
    entry = registry.find(kind, name) if registry.exists(kind, name) else None
    if entry is None or entry.file is None:
        return Declarations
    if registry.is_installed(kind, name):
        found = DECLARED.get(entry.name, {}) if kind == "algorithm" else {}
    else:
        found = _read(entry.file, entry.class_name)
    return cast(type[Declarations], type(entry.class_name, (Declarations,), found))


@functools.cache
def _read(file: Path, class_name: str) -> dict[str, Any]:
    """The words in a class and its bases, as far as they declare something."""
    found: dict[str, Any] = {}
    for base in reversed(source.classes(file)[class_name]):
        place = source.base_of(file, base) if base != class_name else None
        if place is not None and place.module.split(".")[0] not in STOCK:
            if base in source.classes(file) or source.derives(place.file, place.name, "Declares"):
                found |= _read(place.file, place.name)
    node = next(node for node in source.parse(file).body if isinstance(node, ast.ClassDef) and node.name == class_name)
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(word := item.targets[0], ast.Name) and word.id in WORDS:
            try:
                found[word.id] = ast.literal_eval(item.value)
            except ValueError as error:
                raise TypeError(
                    f"{file}:{item.lineno}: {word.id} is read without an import; make it a literal"
                ) from error
    return found


def arguments(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a class: those that are given, and the defaults that are literals; None for any other."""
    known = registry.signature(kind, name)
    return {key: None if p.default is p.empty else p.default for key, p in known.items()} | dict(given)


def is_per_image(name: str, given: Mapping[str, Any]) -> bool:
    """Whether an algorithm works on single images in the loader."""
    expression = declarations("algorithm", name).PER_IMAGE
    return expression != "False" and holds(expression, arguments("algorithm", name, given))
