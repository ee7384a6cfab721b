"""Declarations of an algorithm or an optimizer, and the checks of arguments and runs against them. No torch.

Declarations are literals in the class, so that a configuration is checked against the source without an import. A class
that is instantiated from Python checks its own arguments.
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
STOCK = {package.split(".")[0] for package in registry.PACKAGES.values()}  # they declare nothing and are slow to read


class Declarations:
    """The declarations that a class may make. All are optional, and every value is a literal.

    An expression is Python, over the arguments of the class (a time has `.value` and `.unit`), `config` (the whole run)
    and `duration` (parses a time), with `len` and `max`.
    """

    BOUNDS: ClassVar[Mapping[str, Bound]] = {}
    """Argument -> allowed values. A text is shown to the user and must contain limits: `from 0 to 1`, `at least 1
    pixel`, `more than 0 and less than 1`; in a list they apply to each number. A text that ends in units (`at least 1,
    in ba or ep`) is for a time, or a list of times; a number without a unit is in dur. A tuple lists the allowed words;
    `package.module:NAME` points to that list, in a module that imports no torch. The annotation decides about null."""
    RULES: ClassVar[Mapping[str, str]] = {}
    """Expression that must also hold -> the message if it does not, with {argument} filled in. The message may start
    with an argument or a dotted key of the run, as in `drop_rate: must be 0`. Rules about `config` are skipped without
    a run."""
    NOT_WITH: ClassVar[Mapping[str, str]] = {}
    """Incompatible algorithms -> the reason: what they do, or would do."""
    BEFORE: ClassVar[Mapping[str, str]] = {}
    """Algorithms that must come later in the list -> the reason, as in `which would otherwise smooth ...`."""
    NEEDS: ClassVar[Mapping[str, str]] = {}
    """Required algorithms -> the reason."""
    PER_IMAGE: ClassVar[str] = "False"
    """Expression: whether it has an `image_transform`, which needs a loader of single images."""
    IMAGE_SIZE: ClassVar[str] = ""
    """`package.module:function` that returns the image size. It is called with what it takes of `elapsed` (fraction of
    the run), `crop_size`, `epochs` (of the run before it is scaled; None if unknown) and the arguments of the class."""
    RESIZES: ClassVar[bool] = False
    """Whether it changes the size of training images, which a network for one size does not take."""
    RANKS: ClassVar[str] = ""
    """`package.module:function` that returns why a training run does not fit its ranks, or None. It is called with what
    it takes of `nodes`, `per_node`, `key` (that of the class in a YAML) and the arguments of the class."""
    STARTS: ClassVar[Mapping[str, str]] = {}
    """For Composer's classes (ours have `first_effect`): attribute with the time of the first effect -> attribute with
    the event at which it is checked."""
    PROTOCOL: ClassVar[str] = ""
    """Its name in the protocol of published figures, such as `EMA`; only those with it are comparable to its runs."""
    NO_LR_FIND: ClassVar[str] = ""
    """Reason why the learning-rate finder leaves it out."""


FUNCTIONS = {"len": len, "max": max}  # of an expression
WORDS = tuple(name for name in vars(Declarations) if name.isupper())


class Declares(Declarations):
    """A class that checks its arguments when it is instantiated: a ValueError if one breaks a declaration."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject declarations that name an unknown argument, or have no limits."""
        super().__init_subclass__(**kwargs)
        known, words = set(inspect.signature(cls.__init__).parameters), vars(cls)
        for name, bound in words.get("BOUNDS", {}).items():
            if name not in known:
                raise TypeError(f"{cls.__name__}.BOUNDS: there is no argument {name}{did_you_mean(name, known)}")
            if isinstance(bound, str) and not (LIMIT.search(bound) or ":" in bound):
                raise TypeError(f"{cls.__name__}.BOUNDS: {bound!r} has no limit; use {listing(HOLDS)}, and a number")
        for expression in (*words.get("RULES", {}), words.get("PER_IMAGE", "False")):
            for name in _names(expression) - {"config", "duration", *FUNCTIONS} - known:
                raise TypeError(f"{cls.__name__}: {expression!r} uses {name}, which is not an argument of the class")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments, unless there are none, as in a copy or with the defaults."""
        if args or kwargs:
            given = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs)
            given.apply_defaults()
            for place, sentence in faults(cls, given.arguments):
                raise ValueError(f"{place}: {sentence}" if place else sentence)
        return super().__new__(cls)


def _names(expression: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)}


def units(bound: Bound) -> list[str]:
    """Return the units of a bound for a time; an empty list for any other bound."""
    ends = re.split(", | or ", bound.rpartition(", in ")[2]) if isinstance(bound, str) else []
    return [word for word in ends if word in UNITS]


def _time(value: Any) -> Any:
    """Return a Duration, or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_time(each) for each in value]
    return parse(value) if isinstance(value, str) else Duration(value, "dur")


def misfit(bound: Bound, value: Any) -> str:
    """Return what is wrong with a value that is not null; an empty string if it keeps to the bound."""
    if isinstance(bound, str) and is_outside(bound):
        bound = tuple(pkgutil.resolve_name(bound))
    if isinstance(bound, tuple):
        unknown = f"unknown value {value!r}{did_you_mean(str(value), bound)} (choose {listing(bound)})"
        return "" if value in bound else unknown
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if allowed := units(bound):
        try:
            numbers = [time.value if time.unit in allowed else float("nan") for time in _time(list(numbers))]
        except ValueError as error:
            return str(error)
    if all(HOLDS[word](number, float(limit)) for word, limit in LIMIT.findall(bound) for number in numbers):
        return ""
    return f"{value!r} given, but it must be {bound}"


def holds(expression: str, names: Mapping[str, Any]) -> bool:
    """Whether an expression is true."""
    return bool(eval(expression, {"__builtins__": {}, **FUNCTIONS, **names}))


def faults(declared: type[Declarations], arguments: Mapping[str, Any], config: Any = None) -> Iterator[tuple[str, str]]:
    """Yield what breaks the bounds, or else the rules: the argument or key ("" for the class itself) and a message.

    Args:
        declared: a class, or the declarations read from one.
        arguments: all of its arguments, of the right types.
        config: the run, if any.
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
            broken = _names(expression) - FUNCTIONS.keys() <= names.keys() and not holds(expression, names)
        except ValueError:
            continue  # a duration of the run cannot be read, which is reported elsewhere
        if broken:
            about = re.match(r"([\w.]+): ", text)
            yield about[1] if about else "", text[about.end() if about else 0 :].format_map(names)


@functools.cache
def declarations(kind: str, name: str) -> type[Declarations]:
    """Read the declarations of a class from its source; an unknown name declares nothing.

    Those of Composer's own algorithms are in recipes/algorithms/_composers.py.
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
    """Read the declarations in a class and its bases."""
    found: dict[str, Any] = {}
    for base in reversed(source.classes(file)[class_name]):
        place = source.base_of(file, base) if base != class_name else None
        if place is not None and place.module.split(".")[0] not in STOCK:
            if base in source.classes(file) or source.derives(place.file, place.name, "Declares"):
                found |= _read(place.file, place.name)
    for item in source.node_of(file, class_name).body:
        if isinstance(item, ast.Assign) and isinstance(word := item.targets[0], ast.Name) and word.id in WORDS:
            try:
                found[word.id] = ast.literal_eval(item.value)
            except ValueError as error:
                raise TypeError(
                    f"{file}:{item.lineno}: {word.id} is read without an import; make it a literal"
                ) from error
    return found


def arguments(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a class: those given, and defaults; None for a default that is not a literal."""
    known = registry.signature(kind, name)
    return {key: None if p.default is p.empty else p.default for key, p in known.items()} | dict(given)


def is_per_image(name: str, given: Mapping[str, Any]) -> bool:
    """Whether an algorithm transforms single images in the loader."""
    expression = declarations("algorithm", name).PER_IMAGE
    return expression != "False" and holds(expression, arguments("algorithm", name, given))
