"""Match values from a YAML against type annotations given as text. Only obvious mismatches are reported."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

CHECKS: dict[str, Callable[[object], bool]] = {
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
    "list": lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    "dict": lambda value: isinstance(value, dict),
}
SAME = {"tuple": "list", "Sequence": "list", "List": "list", "Tuple": "list", "Dict": "dict"}
WORDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a string", "None": "null"}


def literal(node: ast.expr) -> object:
    """Return the value of a default that is written as a literal; None for any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def alternatives(node: ast.expr) -> list[ast.expr]:
    """Return the members of a union in any of its three spellings."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return alternatives(node.left) + alternatives(node.right)
    if isinstance(node, ast.Subscript) and _name(node.value) == "Optional":
        return [*alternatives(node.slice), ast.Constant(None)]
    if isinstance(node, ast.Subscript) and _name(node.value) == "Union":
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return [leaf for member in members for leaf in alternatives(member)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return alternatives(ast.parse(node.value, mode="eval").body)
    return [node]


def _name(node: ast.expr) -> str:
    """Return the last component of a name without its subscript: typing.List[int] -> list."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Constant):
        return str(node.value)
    word = ast.unparse(node).split(".")[-1]
    return SAME.get(word, word)


def fits(value: object, annotation: object) -> bool:
    """Return whether a value fits an annotation; any value fits one that is not understood."""
    if not isinstance(annotation, str):
        return True
    for node in _nodes(annotation):
        name = _name(node)
        if name == "Literal" and isinstance(node, ast.Subscript):
            choices = ast.literal_eval(node.slice)
            if value in (choices if isinstance(choices, tuple) else (choices,)):
                return True
        elif name not in CHECKS:
            return True
        elif CHECKS[name](value):
            items = [ast.unparse(item) for item in _items(node)]
            values = value if isinstance(value, Sequence) else ()
            if not items or (len(values) == len(items) and all(map(fits, values, items))):
                return True
    return False


def _items(node: ast.expr) -> list[ast.expr]:
    """Return the item types of a fixed-length tuple; empty for any other annotation."""
    fixed = isinstance(node, ast.Subscript) and _name(node) == "list" and isinstance(node.slice, ast.Tuple)
    items = node.slice.elts if fixed else []  # type: ignore[attr-defined]
    return [] if any(isinstance(item, ast.Constant) and item.value is ... for item in items) else items


def _nodes(annotation: object) -> list[ast.expr]:
    """Return the alternatives of an annotation; empty without an annotation."""
    return alternatives(ast.Constant(annotation)) if isinstance(annotation, str) else []


def is_text(annotation: object) -> bool:
    """Return whether any YAML scalar given for an annotation is meant as a string, even if it looks like a number."""
    names = {_name(node) for node in _nodes(annotation)}
    return "str" in names and not names & {"float", "int", "bool", "Any"}


def is_texts(annotation: object) -> bool:
    """Return whether a list given for an annotation is a list of strings."""
    lists = [node for node in _nodes(annotation) if isinstance(node, ast.Subscript) and _name(node) == "list"]
    return any(_name(node.slice) == "str" for node in lists)


def describe(annotation: object) -> str:
    """Describe an annotation in words: 'a number or null'."""
    parts = []
    for node in _nodes(annotation):
        name = _name(node)
        if isinstance(node, ast.Subscript) and name == "Literal":
            parts.append(f"one of {ast.unparse(node.slice)}")
        elif items := _items(node):
            parts.append(f"a list of {len(items)} ({', '.join(describe(ast.unparse(item)) for item in items)})")
        else:
            parts.append(WORDS.get(name, f"a {name}"))
    return " or ".join(dict.fromkeys(parts))
