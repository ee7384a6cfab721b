"""Check a run's algorithms and optimizer against the declarations of their classes (recipes/declared.py)."""

from __future__ import annotations

import pkgutil
from typing import Any

from common.errors import ConfigError
from config.schema import Config
from config.structure import Report
from recipes import registry
from recipes.declared import arguments, declarations, faults
from recipes.source import taken


def check_algorithms(config: Config, report: Report) -> None:
    """Check that every algorithm exists, accepts its arguments and is compatible with the others."""
    for name, args in config.algorithms.items():
        check_declared(config, "algorithm", name, args, f"algorithms.{name}", report)


def check_declared(config: Config, kind: str, name: str, args: dict[str, Any], key: str, report: Report) -> None:
    """Check an algorithm or optimizer: its name, the arguments given at `key`, and whether it fits the algorithms."""
    declared, order = declarations(kind, name), list(config.algorithms)
    problems = registry.check(kind, name, args, key)
    report.extend(problems)
    violations = [] if problems else list(faults(declared, arguments(kind, name, args), config))
    for where, sentence in violations:
        report.add(where if "." in where else f"{key}.{where}".rstrip("."), sentence)
    for other, reason in declared.NOT_WITH.items():
        if other in order:
            instead = f"{key}=null" if kind == "algorithm" else "another recipe_name"
            report.add(
                f"algorithms.{other}",
                f"cannot be combined with {name}: {reason}; type algorithms.{other}=null, or {instead}",
            )
    for other, reason in declared.BEFORE.items():
        if other in order and order.index(other) < order.index(name) and not violations:
            report.add(key, f"must be listed before {other}, {reason}; move {name} up in its YAML")
    for other, reason in declared.NEEDS.items():
        if other not in order:
            report.add(f"{key}.name", f"{name} needs {other}: {reason}; type algorithms.{other}={{}}")


def check_ranks(config: Config, world_size: int, ranks_per_node: int) -> None:
    """Raise a ConfigError for the first algorithm that does not fit the number of ranks, and of those on each node."""
    for name, args in config.algorithms.items():
        if not (path := declarations("algorithm", name).RANKS):
            continue
        if world_size % ranks_per_node:
            raise ConfigError(
                f"algorithms.{name}: {world_size} ranks do not divide into nodes of {ranks_per_node}; "
                "start the same number of ranks on every node"
            )
        ranks = {"nodes": world_size // ranks_per_node, "per_node": ranks_per_node, "key": f"algorithms.{name}"}
        misfit = pkgutil.resolve_name(path)
        if problem := misfit(**taken(misfit, {**arguments("algorithm", name, args), **ranks})):
            raise ConfigError(problem)
