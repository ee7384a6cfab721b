"""A run's recorded configuration, completed, flattened and compared with another run's."""

from typing import Any

from common.durations import Duration, parse
from common.errors import ConfigError
from config.layers import SECTIONS
from config.load import defaults
from config.read import Tree, deepen, plain, undot
from config.run import durations_of, milestones_of
from config.schema import Config, Scheduler
from training.earlier_run import training_keys

ABSENT = "-"


def completed(content: Any) -> Tree:
    """Return a config.yaml's content with all missing defaults; ConfigError if it is not a run's configuration."""
    if not isinstance(content, dict) or not content:
        raise ConfigError("holds no keys")
    given = undot(plain(content))
    tree = deepen(defaults(), given) | {"optimizer": given.get("optimizer", defaults()["optimizer"])}
    for name in (*SECTIONS, "optimizer", "algorithms"):
        if not isinstance(tree[name], dict):
            raise ConfigError(f"{name} is {tree[name]!r}, not a section with keys")
    parse(str(durations(tree)[0]))  # rejects a length that cannot be printed and read back
    return tree


def durations(config: Tree) -> tuple[Duration, Duration]:
    """Return the length of a run and of its warm-up, scale_schedule_ratio applied; ConfigError if one is invalid."""
    try:
        milestones_of(_timed(config))
        return durations_of(_timed(config))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(str(error)) from error


def _timed(config: Tree) -> Config:
    """Return a Config with the times of a recorded one."""
    keys = ("name", "t_warmup", "scale_warmup", "milestones")
    scheduler = Scheduler(**{key: config["scheduler"][key] for key in keys})
    return Config(**{key: config[key] for key in ("max_duration", "scale_schedule_ratio")}, scheduler=scheduler)


def settings(config: Tree) -> dict[str, Any]:
    """Return the settings that runs share if they repeat each other, as dotted key -> value.

    The seed, names, paths, workers and trackers are left out. 45ep equals 90ep at a scale_schedule_ratio of 0.5.
    """
    length, warmup = durations(config)
    flat = training_keys(config)
    for key in ("seed", "scale_schedule_ratio", "scheduler.scale_warmup"):
        flat.pop(key, None)
    if flat.get("algorithms") == {}:
        del flat["algorithms"]  # each algorithm has its own keys
    milestones = [[str(time), factor] for time, factor in milestones_of(_timed(config))]
    times = {"max_duration": str(length), "scheduler.t_warmup": str(warmup), "scheduler.milestones": milestones}
    return flat | times


def changes(config: Tree, base: Tree) -> dict[str, tuple[Any, Any]]:
    """Return the settings that train differently: dotted key -> (value, value in `base`), ABSENT if there is none."""
    one, other = (settings(tree) | {"seed": tree.get("seed")} for tree in (config, base))
    pairs = {key: (one.get(key, ABSENT), other.get(key, ABSENT)) for key in sorted(one.keys() | other.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
