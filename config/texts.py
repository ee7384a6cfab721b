"""Keep strings as written where a string is expected: YAML would turn run_name=007 into 7, and `on` into True."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import yaml

from common.annotations import is_text, is_texts
from config.schema import OPEN_SECTIONS, Config, hints_of
from recipes import registry

NULLS = ("", "~", "null", "Null", "NULL")
_MARKS = tuple("'\"!&*|>")  # a value that starts with one of these uses YAML syntax beyond a plain scalar


class TextLoader(yaml.SafeLoader):
    """Loads every plain scalar except null as a string.

    Attributes:
        holders: first-level keys that contain anchors.
    """

    yaml_implicit_resolvers: typing.ClassVar[Any] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.holders: set[str] = set()
        self._root: Any = None
        self._key = ""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, recording the first-level key of every anchor."""
        self._root = self._root or parent
        if parent is not None and parent is self._root:
            self._key = str(getattr(index, "value", ""))
        if not self.check_event(yaml.AliasEvent) and self.peek_event().anchor:
            self.holders.add(self._key)
        return super().compose_node(parent, index)


def typed_text(value: str) -> Any:
    """Parse a command-line value for a key that takes a string: as typed, except for null, quotes and tags."""
    read, value = yaml.load(value, TextLoader), value.strip()
    is_plain = (read is None or isinstance(read, str)) and value not in NULLS and not value.startswith(_MARKS)
    return value if is_plain else read


def keep_texts(tree: dict[str, Any], texts: Any, cls: type = Config) -> None:
    """Restore the strings of a tree where the schema, or the signature of a named class, accepts only strings.

    Args:
        tree: as typed by YAML; changed in place. May contain override blocks for recipes.
        texts: the same tree as loaded by TextLoader.
        cls: the tree's schema.
    """
    hints = hints_of(cls)
    for key, value in tree.items():
        text, hint = texts.get(key) if isinstance(texts, dict) else None, hints.get(key)
        if not isinstance(value, dict):
            tree[key] = text if _is_text(hint) and isinstance(text, str) else value
        elif is_dataclass(hint) or (hint is None and cls is Config):
            keep_texts(value, text, typing.cast(type, hint) if hint else Config)
        elif cls is Config and isinstance(text, dict):
            _keep_arguments(key, value, text)


def _is_text(hint: Any) -> bool:
    kinds = typing.get_args(hint) or (hint,)
    return set(kinds) - {type(None)} == {str}


def _keep_arguments(section: str, tree: dict[str, Any], texts: Mapping) -> None:
    """Restore the strings in a section whose keys name classes, or in an optimizer's arguments."""
    for name, args in tree.items():
        kind, given = OPEN_SECTIONS.get(section), texts.get(name)
        if kind is None or not isinstance(args, dict) or not isinstance(given, dict):
            continue
        known = registry.signature(kind, name) if registry.exists(kind, name) else {}
        for key, value in args.items():
            note, text = known[key].annotation if key in known else None, given.get(key)
            if is_text(note) and isinstance(text, str) and not isinstance(value, dict):
                args[key] = text
            elif is_texts(note) and isinstance(text, list) and isinstance(value, list):
                args[key] = [of if isinstance(of, str) else old for of, old in zip(text, value, strict=False)]
