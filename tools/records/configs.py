"""A run's recorded configuration: complete, flat, and comparable with another run's. No torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from common.durations import Duration, durations_of, parse
from common.errors import ConfigError
from config.layers import SECTIONS
from config.load import defaults
from config.read import Tree, deepen, plain, undot
from training.identity import training_keys

SEED = "seed"
ABSENT = "-"


def completed(content: Any) -> Tree:
    """The content of a config.yaml with every key of the schema: a key that came later has its default.

    Raises:
        ConfigError: it is not a run's configuration.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError("holds no keys")
    said = undot(plain(content))
    tree = deepen(defaults(), said) | {"optimizer": said.get("optimizer", defaults()["optimizer"])}
    for name in (*SECTIONS, "optimizer", "algorithms"):
        if not isinstance(tree[name], dict):
            raise ConfigError(f"{name} is {tree[name]!r}, not a section with keys")
    parse(str(durations(tree)[0]))  # a length that cannot be read back cannot be told either
    return tree


def durations(config: Tree) -> tuple[Duration, Duration]:
    """The length of a run and of its warm-up, scale_schedule_ratio applied.

    Raises:
        ConfigError: one of them cannot be read.
    """
    try:
        return durations_of(SimpleNamespace(**config | {"scheduler": SimpleNamespace(**config["scheduler"])}))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(str(error)) from error


def settings(config: Tree) -> dict[str, Any]:
    """What two runs must share to be repetitions of each other, as dotted key -> value.

    Not the seed, and nothing that says where and how: names, paths, workers, trackers. 45ep and 90ep at a
    scale_schedule_ratio of 0.5 are one length.
    """
    length, warmup = durations(config)
    flat = training_keys(config)
    for key in (SEED, "scale_schedule_ratio", "scheduler.scale_warmup"):
        flat.pop(key, None)
    if flat.get("algorithms") == {}:
        del flat["algorithms"]  # those that are there stand under keys of their own
    return flat | {"max_duration": str(length), "scheduler.t_warmup": str(warmup)}


def changes(config: Tree, base: Tree) -> dict[str, tuple[Any, Any]]:
    """Where a configuration trains differently from another: dotted key -> (its value, the other's), ABSENT if none."""
    one, other = (settings(tree) | {SEED: tree.get(SEED)} for tree in (config, base))
    return {
        key: (one.get(key, ABSENT), other.get(key, ABSENT))
        for key in sorted(one.keys() | other.keys())
        if one.get(key, ABSENT) != other.get(key, ABSENT)
    }
