"""The YAML of a sweep and its runs: recipes x lengths x seeds."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import named
from common.suggest import did_you_mean, listing
from common.trees import leaves
from config import ConfigError, check_world, load
from config.read import ROOT, Tree, read_yaml
from config.schema import Config

KEYS = {
    "yaml": "the run's YAML, as in yamls/digits.yaml",
    "recipes": "a list of names from recipes/, or paths of YAMLs",
    "ratios": "a list of scale_schedule_ratio, as in [0.5, 1.0]; 1.0 alone if left out",
    "seeds": "a list of seeds, or their number, counting from the YAML's own",
    "overrides": "key: value for all runs",
    "processes": "processes of a run, one per GPU; 1 if left out",
    "runs_folder": "where the runs go; runs/ and the sweep's name if left out",
    "slurm": "the shape of the job for --emit slurm: preset, or the keys of launch/slurm/presets.yaml",
}


@dataclass(frozen=True)
class Planned:
    """One run of a sweep."""

    recipe: str
    ratio: float
    seed: int
    name: str
    words: tuple[str, ...]  # what follows main.py


@dataclass(frozen=True)
class Plan:
    """A sweep: its runs in order, and their common settings."""

    runs: tuple[Planned, ...]
    folder: Path  # holds their run folders
    processes: int
    slurm: Tree


def read(path: str, typed: Sequence[str], elsewhere: bool = False) -> Plan:
    """Read a sweep's YAML and check the configuration of every run; ConfigError with every fault at once.

    The words `typed` override the YAML's overrides. `elsewhere`: other machines run it, so its data need not be here.
    """
    tree = read_yaml(Path(path).expanduser(), path, (ROOT / "yamls" / "sweeps").glob("*.yaml"))
    if problems := _problems(path, tree):
        raise ConfigError(*problems)
    folder = Path(tree.get("runs_folder") or f"runs/{Path(path).stem}")
    flat = leaves(tree.get("overrides") or {})
    overrides = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in flat]
    recipes, ratios = tree["recipes"], tree.get("ratios") or [1.0]
    runs = [
        _planned(tree["yaml"], recipe, float(ratio), int(seed), folder, [*overrides, *typed])
        for seed, ratio, recipe in itertools.product(_seeds(tree), ratios, recipes)  # every recipe once per seed
    ]
    plan = Plan(tuple(runs), folder, int(tree.get("processes") or 1), tree.get("slurm") or {})
    _check(plan, ["dry_run=true"] if elsewhere else [])
    return plan


def _problems(path: str, tree: Tree) -> list[str]:
    problems = [f"{path}: {key}: no such key{did_you_mean(key, KEYS)}" for key in tree if key not in KEYS]
    problems += [f"{path}: {key} is missing: {KEYS[key]}" for key in ("yaml", "recipes", "seeds") if not tree.get(key)]
    numbers: dict[str, Any] = {"ratios": (int, float), "seeds": int, "recipes": str}
    for key, kind in numbers.items():
        value = tree.get(key)
        if key == "seeds" and isinstance(value, int) and value > 0:
            continue
        if value and not (isinstance(value, list) and all(isinstance(item, kind) for item in value)):
            problems.append(f"{path}: {key}: {value!r} given, but it must be {KEYS[key]}")
        elif value and (twice := [str(item) for item, count in Counter(value).items() if count > 1]):
            problems.append(f"{path}: {key}: {listing(twice)} is listed twice; name each once")
    for key, kind in {"overrides": dict, "slurm": dict, "processes": int, "yaml": str, "runs_folder": str}.items():
        if tree.get(key) is not None and not isinstance(tree[key], kind):
            problems.append(f"{path}: {key}: {tree[key]!r} given, but it must be {KEYS[key]}")
    return problems


def _seeds(tree: Tree) -> list[int]:
    if isinstance(tree["seeds"], list):
        return tree["seeds"]
    first = int(read_yaml(Path(tree["yaml"]), tree["yaml"], ()).get("seed") or Config().seed)
    return list(range(first, first + tree["seeds"]))


def _planned(yaml: str, recipe: str, ratio: float, seed: int, folder: Path, words: list[str]) -> Planned:
    length = "" if ratio == 1 else f"-x{ratio:g}"
    name = f"{Path(recipe).stem}{length}-seed{seed}"
    chosen = [f"recipe_name={recipe}", f"seed={seed}", *([f"scale_schedule_ratio={ratio:g}"] if length else [])]
    where = [f"run_name={name}", f"runs_folder={folder}", "autoresume=true"]
    return Planned(recipe, ratio, seed, name, (yaml, *words, *chosen, *where))


def _check(plan: Plan, more: list[str]) -> None:
    """Load every configuration, so that a wrong word does not surface at the sweep's last run."""
    problems: dict[str, list[str]] = {}
    for run in plan.runs:
        try:
            config = load([*run.words, *more]).config
            check_world(config, plan.processes, plan.processes)
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(run.name)
    names = Counter(run.name for run in plan.runs)
    if twice := [name for name, count in names.items() if count > 1]:
        problems["recipes: two of them have the same name, so that their runs would share a folder"] = twice
    if problems:
        raise ConfigError(*(f"{named(names, 1)}: {problem}" for problem, names in problems.items()))
