"""A run: its configuration, the layers and recipe it was built from, and the settings chosen for this machine."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.durations import Duration, parse
from common.errors import ConfigError
from config.read import Tree
from config.schema import Config
from loaders.images.decoders import chosen
from loaders.storage.kinds import kind_of
from recipes import registry
from recipes.schedules import WITH_MILESTONES

BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings resolved for this machine where the configuration leaves a choice."""

    device: str  # cpu or gpu
    precision: str  # one of config.schema.PRECISIONS
    microbatch: int | str  # images per forward pass on one device; auto finds it by trial, on a GPU
    compile: bool = False


@dataclass
class Run:
    """A configuration, its sources, and its settings on this machine."""

    config: Config  # complete and checked
    sources: dict[str, str]  # dotted key -> the layer that set it
    yaml_path: str | None = None  # as given; None if the caller merged the configuration
    argv: list[str] = field(default_factory=list)  # the arguments of the command line
    lenient: bool = False  # True for callers of the published example's functions
    recipe: Recipe | None = None  # None: the YAML alone
    prepared: Machine | None = None  # set by training.devices.prepare

    @property
    def machine(self) -> Machine:
        """Settings for this machine; available once training.devices.prepare() has run."""
        assert self.prepared is not None, "training.devices.prepare(run) comes first"
        return self.prepared

    @property
    def recipe_name(self) -> str:
        """The recipe as it was named, by its name or the path of its YAML; baseline if none was."""
        return self.config.recipe_name or BASELINE

    def default_name(self) -> str:
        """Return a name for a run that was given none: its YAML, its recipe and the time."""
        yaml = Path(self.yaml_path or "config.yaml").stem
        about = self.config.model.name if yaml == "config" else yaml  # every run folder has a config.yaml
        return f"{about}-{Path(self.recipe_name).stem}-{time.strftime('%Y%m%d-%H%M%S')}"

    @property
    def card(self) -> dict[str, Any]:
        """The recipe's card; empty without a recipe."""
        return self.recipe.card if self.recipe else {}

    @property
    def decoders(self) -> dict[str, str]:
        """The decoder of each data section whose storage uses one; a DataError as by loaders.images.decoders.chosen."""
        kinds = {name: kind_of(data.storage) for name, data in self.config.sections().items()}
        used = [name for name, kind in kinds.items() if kind.reads_path and not kind.own_decoder]
        return {name: chosen(self.config.section(name).decoder) for name in used}

    @property
    def outside(self) -> dict[str, str]:
        """Classes and functions that the run imports from outside this project, by the key that names them."""
        config = self.config
        names: dict[str, Any] = {"model.name": config.model.name, "scheduler.name": config.scheduler.name}
        names |= {"optimizer.name": config.optimizer.get("name")}
        names |= {f"{key}.storage": config.section(key).storage for key in ("train_dataset", "eval_dataset")}
        opened = {"algorithms": config.algorithms, "callbacks": config.callbacks, "loggers": config.loggers}
        names |= {f"{section}.{name}": name for section, named in opened.items() for name in named}
        return {key: name for key, name in names.items() if registry.is_outside(str(name))}

    def is_of_recipe(self, key: str) -> bool:
        """Return whether the recipe's own file set a key, or one that it is based on."""
        return self.recipe is not None and self.sources.get(key) in [each.label for each in self.recipe.lineage]


@dataclass
class Recipe:
    """A recipe's YAML as read."""

    label: str  # recipes/mild.yaml, or the path as given by the user
    path: Path
    card: dict[str, Any] = field(default_factory=dict)
    changes: Tree = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)  # first-level keys that hold YAML anchors
    parent: Recipe | None = None  # the recipe that it is based on, below its changes

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.stem

    @property
    def lineage(self) -> list[Recipe]:
        """The recipes that it is based on, the first ancestor first, and itself."""
        return [*(self.parent.lineage if self.parent else []), self]

    @property
    def names(self) -> list[str]:
        """The names of its override blocks: those of its lineage."""
        return [*dict.fromkeys(recipe.name for recipe in self.lineage)]

    @property
    def title(self) -> str:
        """Its name, and the names of those that it is based on."""
        return ", based on ".join(recipe.name for recipe in reversed(self.lineage))


def durations_of(config: Config) -> tuple[Duration, Duration]:
    """Return the length of a run and of its warm-up, with scale_schedule_ratio applied.

    The length is truncated to whole epochs or batches, as in Composer (90ep times 0.36 is 32ep). The warm-up keeps its
    fraction of an epoch, and is not scaled if scheduler.scale_warmup is false.

    Raises:
        ConfigError: a duration cannot be parsed, or the scaled run is shorter than one unit.
    """
    ratio = float(config.scale_schedule_ratio)  # a run folder may hold anything
    try:
        full, warmup = parse(config.max_duration), parse(config.scheduler.t_warmup)
    except ValueError as error:
        raise ConfigError(f"max_duration or scheduler.t_warmup: {error}") from error
    if math.isinf(max(full.value, warmup.value) * ratio):
        raise ConfigError(
            f"scale_schedule_ratio: {ratio:g} makes max_duration or scheduler.t_warmup too long to compute with; "
            "use a ratio of about 1"
        )
    # The epsilon makes 100ep * 0.29 (28.999999999999996 in floating point) come out as 29.
    length = Duration(float(int(full.value * ratio + 1e-9)), full.unit)
    if length.value < 1:
        raise ConfigError(
            f"max_duration: {full} times scale_schedule_ratio {ratio:g} leaves less than one {length.unit}; "
            f"a ratio of at least {1 / full.value if full.value else 1:.3g} leaves one"
        )
    scale = config.scheduler.scale_warmup and warmup.unit != "dur"
    return length, warmup.scaled(ratio) if scale else warmup


def milestones_of(config: Config) -> list[tuple[Duration, float]]:
    """Return the schedule's milestones, which config.check_schedule has checked, with scale_schedule_ratio applied."""
    if config.scheduler.name not in WITH_MILESTONES:
        return []
    parsed = [(parse(time), float(factor)) for time, factor in config.scheduler.milestones]
    return [(time if time.unit == "dur" else time.scaled(config.scale_schedule_ratio), each) for time, each in parsed]
