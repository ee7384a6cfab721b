"""Check the merged layers against the schema's keys and types; what does not match gets its default and is reported."""

from __future__ import annotations

import os.path
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, is_dataclass
from typing import Any

from common.suggest import closest
from config.read import Tree
from config.schema import OPEN_SECTIONS, Config, hints_of
from recipes import registry

PATHS = ("path", "local", "save_folder", "load_path", "runs_folder", "preload", "weights")
"""Keys whose value is a path, in which ~ is expanded."""
WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
WORDS |= {list: "a list", type(None): "null"}
HINTS = {
    "lr": "optimizer.lr",
    "epochs": "max_duration",
    "num_epochs": "max_duration",
    "recipe": "recipe_name",
    "based_on": "recipe_name",
    "name": "run_name",
    "batch_size": "train_dataset.batch_size",
    "num_workers": "train_dataset.num_workers",
    "data": "train_dataset.path",
    "path": "train_dataset.path",
    "model_name": "model.name",
    "num_classes": "model.num_classes",
    "weights": "model.weights",
    "pretrained": "model.weights",
    "head": "model.head",
    "freeze": "model.freeze",
    "freeze_backbone": "model.freeze",
    "freeze_bn": "model.freeze_batchnorm",
    "layer_decay": "optimizer.layer_decay",
    "head_lr_multiplier": "optimizer.head_lr_multiplier",
    "loss_name": "model.loss_name",
    "crop_size": "train_dataset.crop_size",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "t_warmup": "scheduler.t_warmup",
    # Arguments of Composer, and keys of its older YAMLs
    "train_batch_size": "train_dataset.batch_size",
    "eval_batch_size": "eval_dataset.batch_size",
    "val_dataset": "eval_dataset",
    "dataloader": "train_dataset.num_workers",
    "schedulers": "scheduler",
    "optimizers": "optimizer",
    "deterministic_mode": "deterministic",
    "compile_config": "compile",
    "validate_every_n_epochs": "eval_interval",
    "validate_every_n_batches": "eval_interval",
    "save_num_checkpoints": "save_num_checkpoints_to_keep",
}
"""Keys that people try -> the keys that they want."""
FLAT = {
    "model": "{name: resnet50, num_classes: 1000}",
    "train_dataset": "{path: /data/imagenet, batch_size: 2048}",
    "eval_dataset": "{path: /data/imagenet, batch_size: 2048}",
    "scheduler": "{name: cosine_with_warmup, t_warmup: 8ep}",
}
"""Sections with an additional level in Composer's older YAMLs, as in `model: {resnet: {num_classes: 1000}}`."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
COMMAND_LINE, CALLER = "command line", "the caller"  # the layers set by the person who starts the run


class Report:
    """The problems found so far, as complete sentences that name the key and the layer that set it.

    Args:
        sources: dotted key -> the layer that set it.
    """

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources
        self.problems: list[str] = []

    def add(self, key: str, sentence: str) -> None:
        """Add a problem with the value of a key."""
        self.problems.append(f"{key}: {sentence}{self.origin(key)}")

    def extend(self, sentences: Iterable[str]) -> None:
        """Add problems that start with their key."""
        self.problems += [f"{sentence}{self.origin(sentence.split(': ')[0])}" for sentence in sentences]

    def origin(self, key: str) -> str:
        """Return the layer that set a value, as the end of a message: ' [yamls/digits.yaml]'."""
        below = [source for leaf, source in self.sources.items() if leaf == key or leaf.startswith(f"{key}.")]
        return f" [{below[0]}]" if below and below[0] != "default" else ""


class Structure(Report):
    """Checks a tree against the schema.

    Args:
        blocks: possible names of override blocks, suggested for a misspelled first-level key.
        holders: first-level keys that hold YAML anchors.
    """

    def __init__(self, sources: dict[str, str], blocks: Iterable[str] = (), holders: Iterable[str] = ()) -> None:
        super().__init__(sources)
        self.blocks, self.holders = list(blocks), holders

    def conform(self, tree: Tree, cls: Callable[..., Any] = Config, prefix: str = "") -> Any:
        """Convert the tree to a dataclass, dropping unknown keys, with defaults in place of wrong values."""
        hints = hints_of(cls)
        result: Tree = {}
        for key, value in tree.items():
            if key not in hints:
                self.problems.append(self._unknown(prefix, key, value, list(hints)))
            elif is_dataclass(hints[key]):
                result[key] = self.conform(value, typing.cast(type, hints[key]), f"{prefix}{key}.")
            elif typing.get_origin(hints[key]) is dict:
                result[key] = value
            elif (converted := self._value(f"{prefix}{key}", value, hints[key])) is not MISSING:
                is_path = key in PATHS and isinstance(converted, str)
                result[key] = os.path.expanduser(converted) if is_path else converted
        return cls(**result)

    def _unknown(self, prefix: str, key: str, value: Any, known: list[str]) -> str:
        """Return the message for a key that does not exist."""
        full = f"{prefix}{key}"
        if not prefix and VARIABLE.fullmatch(key) and not isinstance(value, dict):
            return f"{full}: no such key; put an environment variable before the command: {key}=... python main.py"
        meant = None if prefix else HINTS.get(key) or self._elsewhere(key)
        if meant is None and (near := closest(key, known if prefix else [*known, *self.blocks])):
            meant = f"{prefix}{near}"
        hint = f"; did you mean {meant}?" if meant else f" (the keys are {', '.join(known)})"
        if meant is None and isinstance(value, dict) and (example := FLAT.get(prefix.rstrip("."))):
            hint += f"; a name is not a level here, so write {prefix.rstrip('.')}: {example}"
        if not prefix and key in self.holders:
            likely = f"{hint} If it" if meant else "; if it"
            hint = f"{likely} only holds values for YAML anchors, name it x-{key}"
        return f"{full}: no such key{hint}{self.origin(full)}"

    def _elsewhere(self, key: str) -> str | None:
        """Return the key that the name of a class belongs to: sam -> algorithms.sam."""
        for section, kind in OPEN_SECTIONS.items():
            if registry.exists(kind, key):
                return f"{section}.{registry.canonical(kind, key)}"
        return None

    def _value(self, key: str, value: Any, hint: Any) -> Any:
        """Convert a value to its type if that loses nothing; otherwise report it and return MISSING."""
        allowed = typing.get_args(hint) or (hint,)
        for kind in allowed:
            if (converted := convert(value, kind)) is not MISSING:
                return converted
        words = " or ".join(WORDS[kind] for kind in allowed)
        self.add(key, f"{value!r} given, but it must be {words}")
        return MISSING


def convert(value: Any, kind: type) -> Any:
    """Convert a value to `kind`, or return MISSING; 2048.0 is accepted as an int, and 5 as a str."""
    if isinstance(value, bool) or value is None:
        return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else MISSING
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, (int, float)):
        return str(value)
    return value if isinstance(value, kind) else MISSING
