"""The text that stands where a text is wanted: YAML would make 7 of run_name=007, and True of on."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import yaml

from common.annotations import is_text, is_texts
from config.schema import OPEN_SECTIONS, Config
from recipes import registry

NULLS = ("", "~", "null", "Null", "NULL")
_MARKS = tuple("'\"!&*|>")  # what begins with one of these is more than a plain text


class TextLoader(yaml.SafeLoader):
    """Reads every plain scalar but null as the text that it is.

    Attributes:
        holders: the first-level keys below which there are anchors.
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
        """Compose as always, noting below which key an anchor is met."""
        self._root = self._root or parent
        if parent is not None and parent is self._root:
            self._key = str(getattr(index, "value", ""))
        if not self.check_event(yaml.AliasEvent) and self.peek_event().anchor:
            self.holders.add(self._key)
        return super().compose_node(parent, index)


def typed_text(value: str) -> Any:
    """What a word of the command line gives to a key that takes a text: as typed, but for null, quotes and tags."""
    read, value = yaml.load(value, TextLoader), value.strip()
    is_plain = (read is None or isinstance(read, str)) and value not in NULLS and not value.startswith(_MARKS)
    return value if is_plain else read


def keep_texts(tree: dict[str, Any], texts: Any, cls: type = Config) -> None:
    """Put the texts of a tree back where the schema, or the class that a name stands for, takes nothing else.

    Args:
        tree: as YAML types it; changed in place. Its mappings may be blocks of overrides for a recipe.
        texts: the same tree as TextLoader reads it.
        cls: what the tree is of.
    """
    hints = typing.get_type_hints(cls)
    for key, value in tree.items():
        text, hint = texts.get(key) if isinstance(texts, dict) else None, hints.get(key)
        if not isinstance(value, dict):
            tree[key] = text if _is_text(hint) and isinstance(text, str) else value
        elif is_dataclass(hint) or (hint is None and cls is Config):
            keep_texts(value, text, typing.cast(type, hint) if hint else Config)
        elif cls is Config and isinstance(text, dict):
            _keep_arguments(key, value, text)


def _is_text(hint: Any) -> bool:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return set(kinds) - {type(None)} == {str}


def _keep_arguments(section: str, tree: dict[str, Any], texts: Mapping) -> None:
    """The same for a section whose keys are names of classes, or an optimizer's arguments."""
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
