"""Merge layers of configuration, recording which layer set each value."""

from __future__ import annotations

from typing import Any

from config.read import Tree
from config.schema import OPEN_SECTIONS
from recipes import registry
from recipes.declared import declarations

SECTIONS = ("model", "train_dataset", "eval_dataset", "scheduler")  # with fixed keys


class Layers:
    """The layers merged up to now, with the source of every value and all problems found while merging."""

    def __init__(self, defaults: Tree) -> None:
        self.tree: Tree = {}
        self.sources: dict[str, str] = {}  # dotted key of each leaf -> the layer that set it
        self.problems: list[str] = []  # complete sentences
        self.holders: set[str] = set()  # first-level keys of files that hold YAML anchors
        self._merge(self.tree, defaults, "", "default")

    def add(self, name: str, values: Tree, may_remove_nothing: bool = False) -> None:
        """Merge another layer on top; null removes an algorithm, callback or logger.

        `may_remove_nothing`: whether null may remove something that is not set, as on the command line.
        """
        for key, value in values.items():
            if key in OPEN_SECTIONS:
                self._open(key, value, name, may_remove_nothing)
            elif key == "optimizer" and isinstance(value, dict):
                self._optimizer(value, name)
            elif (key in SECTIONS or key == "optimizer") and not isinstance(value, dict):
                if value is not None:
                    self.problems.append(f"{key}: {value!r} given ({name}), but it must be a section with keys")
            else:
                self._merge(self.tree, {key: value}, "", name)

    def _merge(self, into: Tree, values: Tree, prefix: str, name: str) -> None:
        """Merge leaf by leaf."""
        for key, value in values.items():
            path = prefix + key
            old = into.get(key)
            if isinstance(value, dict) and (value or key not in into or isinstance(old, dict)):
                if not isinstance(old, dict):
                    self._forget(path)
                    into[key] = {}
                if value:
                    self.sources.pop(path, None)
                elif not into[key]:
                    self.sources[path] = name
                self._merge(into[key], value, f"{path}.", name)
            else:
                self._forget(path)
                into[key] = value
                self.sources[path] = name

    def _forget(self, path: str) -> None:
        """Drop the sources of a value and of everything below it."""
        for key in [key for key in self.sources if key == path or key.startswith(f"{path}.")]:
            del self.sources[key]

    def _optimizer(self, values: Tree, name: str) -> None:
        """Merge the optimizer; a layer that names another one discards the arguments of the previous one."""
        new = values.get("name")
        if new is not None:
            values = {**values, "name": registry.canonical("optimizer", str(new))}
            if values["name"] != self.tree["optimizer"].get("name"):
                self._forget("optimizer")
                self.tree["optimizer"] = {}
        self._merge(self.tree, {"optimizer": values}, "", name)

    def _open(self, section: str, values: Any, name: str, may_remove_nothing: bool) -> None:
        """Merge a section whose keys name classes."""
        if values is None:
            self._forget(section)
            self.tree[section] = {}
            return
        if not isinstance(values, dict):
            self.problems.append(f"{section}: {values!r} given ({name}), but it must map names to arguments")
            return
        seen: dict[str, str] = {}
        before = set(self.tree[section])
        if values:
            self.sources.pop(section, None)
        for word, args in values.items():
            key = registry.canonical(OPEN_SECTIONS[section], word)
            if key in seen:
                self.problems.append(f"{section}: {seen[key]} and {word} name the same class ({name}); keep one")
            seen[key] = word
            if isinstance(args, dict):
                new = key not in self.tree[section]
                self._merge(self.tree[section], {key: args}, f"{section}.", name)
                if new and section == "algorithms":
                    self.tree[section] = placed(self.tree[section], key, before)
            elif args is None and key in self.tree[section]:
                del self.tree[section][key]
                self._forget(f"{section}.{key}")
            elif not registry.exists(OPEN_SECTIONS[section], key):
                self.problems += registry.check(OPEN_SECTIONS[section], key, {}, f"{section}.{key}")
            elif args is not None:
                self.problems.append(
                    f"{section}.{word}: {args!r} given ({name}), but it must be a mapping of arguments; "
                    f"type {section}.{word}={{}} to enable it with its defaults, {section}.{word}=null to remove it"
                )
            elif not may_remove_nothing:
                self.problems.append(
                    f"{section}.{key}: an empty value removes it ({name}), but no earlier layer sets it; "
                    f"write {{}} to enable it with its defaults"
                )
        if not self.tree[section]:
            self.sources[section] = name


def placed(algorithms: Tree, new: str, before: set[str]) -> Tree:
    """Move the algorithm `new` ahead of those, out of `before`, that its class declares must come later.

    A command line cannot express the position of an algorithm that it adds to those of earlier layers.
    """
    order = [name for name in algorithms if name != new]
    known = [name for name in order if name in declarations("algorithm", new).BEFORE and name in before]
    at = order.index(known[0]) if known else len(order)
    order.insert(at, new)
    return {name: algorithms[name] for name in order}
