"""Whether the algorithms and the optimizer of a run keep to what their classes declare (recipes/declared.py)."""

from __future__ import annotations

from typing import Any

from config.report import Report
from config.schema import Config
from recipes import registry
from recipes.declared import arguments, declarations, faults


def check_algorithms(config: Config, report: Report) -> None:
    """All algorithms of a run: whether they exist, take their arguments, and go together."""
    algorithms = config.algorithms
    for name, args in algorithms.items():
        check_declared(config, "algorithm", name, args, f"algorithms.{name}", report)


def check_declared(config: Config, kind: str, name: str, args: dict[str, Any], place: str, report: Report) -> None:
    """One class: its name, its arguments, and the algorithms of the run that it does not go with.

    Args:
        config: the run.
        kind: algorithm or optimizer.
        name: in the configuration.
        args: given there.
        place: of its arguments, as in algorithms.sam.
        report: is added to.
    """
    declared, order = declarations(kind, name), list(config.algorithms)
    problems = registry.check(kind, name, args, place)
    report.extend(problems)
    found = [] if problems else list(faults(declared, arguments(kind, name, args), config))
    for where, sentence in found:
        report.add(where if "." in where else f"{place}.{where}".rstrip("."), sentence)
    for other, reason in declared.NOT_WITH.items():
        if other in order:
            instead = f"{place}=null" if kind == "algorithm" else "another recipe_name"
            report.add(
                f"algorithms.{other}",
                f"does not go with {name}: {reason}; type algorithms.{other}=null, or {instead}",
            )
    for other, reason in declared.BEFORE.items():
        if other in order and order.index(other) < order.index(name) and not found:
            report.add(place, f"must stand before {other}, {reason}; move {name} up in its YAML")
    for other, reason in declared.NEEDS.items():
        if other not in order:
            report.add(f"{place}.name", f"{name} needs {other}: {reason}; type algorithms.{other}={{}}")
