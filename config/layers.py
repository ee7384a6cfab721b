"""Laying one layer of configuration over another, and remembering which layer set each value."""

from __future__ import annotations

from typing import Any

from config.read import Tree
from config.schema import OPEN_SECTIONS, EvalDataset, Model, Scheduler, TrainDataset
from recipes import registry
from recipes.declared import declarations

SECTIONS: dict[str, type] = {
    "model": Model,
    "train_dataset": TrainDataset,
    "eval_dataset": EvalDataset,
    "scheduler": Scheduler,
}
"""Sections with fixed keys."""


class Layers:
    """The merged configuration so far, with the source of every value and every complaint about the merging.

    Attributes:
        tree: the configuration as nested dictionaries.
        sources: dotted key -> the layer that set it, for leaves.
        problems: finished sentences.
        holders: first-level keys of files that hold YAML anchors.
    """

    def __init__(self, defaults: Tree) -> None:
        self.tree: Tree = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []
        self.holders: set[str] = set()
        self._lay(self.tree, defaults, "", "default")

    def add(self, name: str, values: Tree, may_remove_nothing: bool = False) -> None:
        """Lay `values` over what is there.

        Args:
            name: how messages call this layer.
            values: nested dictionaries; null removes an algorithm, callback or logger.
            may_remove_nothing: whether removing what is not there is fine, as it is on the command line.
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
                self._lay(self.tree, {key: value}, "", name)

    def _lay(self, into: Tree, values: Tree, prefix: str, name: str) -> None:
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
                self._lay(into[key], value, f"{path}.", name)
            else:
                self._forget(path)
                into[key] = value
                self.sources[path] = name

    def _forget(self, path: str) -> None:
        """Drop the sources of a value and of all below it."""
        for key in [key for key in self.sources if key == path or key.startswith(f"{path}.")]:
            del self.sources[key]

    def _optimizer(self, values: Tree, name: str) -> None:
        """Arguments of one optimizer mean nothing to another: a layer that names another starts with a clean slate."""
        new = values.get("name")
        if new is not None:
            values = {**values, "name": registry.canonical("optimizer", str(new))}
            if values["name"] != self.tree["optimizer"].get("name"):
                self._forget("optimizer")
                self.tree["optimizer"] = {}
        self._lay(self.tree, {"optimizer": values}, "", name)

    def _open(self, section: str, values: Any, name: str, may_remove_nothing: bool) -> None:
        """Merge one of the sections whose keys name classes."""
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
                self.problems.append(f"{section}: {seen[key]} and {word} are the same ({name}); keep one")
            seen[key] = word
            if args is None:
                self._remove(section, key, name, may_remove_nothing)
            elif isinstance(args, dict):
                new = key not in self.tree[section]
                self._lay(self.tree[section], {key: args}, f"{section}.", name)
                if new and section == "algorithms":
                    self.tree[section] = placed(self.tree[section], key, before)
            elif not registry.exists(OPEN_SECTIONS[section], key):
                self.problems += registry.check(OPEN_SECTIONS[section], key, {}, f"{section}.{key}")
            else:
                self.problems.append(
                    f"{section}.{word}: {args!r} given ({name}), but it must be arguments: "
                    f"type {section}.{word}={{}} to switch it on with its defaults, {section}.{word}=null to remove it"
                )
        if not self.tree[section]:
            self.sources[section] = name

    def _remove(self, section: str, key: str, name: str, may_remove_nothing: bool) -> None:
        """Take an algorithm, callback or logger away."""
        if key in self.tree[section]:
            del self.tree[section][key]
            self._forget(f"{section}.{key}")
        elif not registry.exists(OPEN_SECTIONS[section], key):
            self.problems += registry.check(OPEN_SECTIONS[section], key, {}, f"{section}.{key}")
        elif not may_remove_nothing:
            self.problems.append(
                f"{section}.{key}: empty means 'remove it' ({name}), but no earlier layer sets it; "
                f"write {{}} to switch it on with its defaults"
            )


def placed(algorithms: Tree, new: str, before: set[str]) -> Tree:
    """Algorithms in order, when `new` has just been added at the end, to those that earlier layers set (`before`).

    A command line cannot say where an algorithm belongs. So one added to a recipe's goes before those that it declares
    to come later.
    """
    order = [name for name in algorithms if name != new]
    known = [name for name in order if name in declarations("algorithm", new).BEFORE and name in before]
    at = order.index(known[0]) if known else len(order)
    order.insert(at, new)
    return {name: algorithms[name] for name in order}
