"""Read the environment variables from which each process learns its rank, and reject incomplete sets."""

from __future__ import annotations

import os
from collections.abc import Mapping

from common.errors import ConfigError
from common.suggest import listing

NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
NEEDED = (*NUMBERS, "MASTER_ADDR")
"""Variables without which several processes cannot connect."""


def world(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return the number of ranks on all nodes and on this one.

    Raises:
        ConfigError: a launcher's variables are incomplete, as after `export WORLD_SIZE=2` in an interactive shell.
    """
    given = {name: environment[name] for name in NEEDED if environment.get(name)}
    advice = f"Start it with `composer -n RANKS main.py ...`; for one process, type first: unset {' '.join(given)}"
    for name in NUMBERS:
        if not given.get(name, "0").isascii() or not given.get(name, "0").isdigit():
            raise ConfigError(f"{name}={given[name]} in the environment: it must be a whole number. {advice}")
    count, local = int(given.get("WORLD_SIZE", "1")), int(given.get("LOCAL_WORLD_SIZE", "1"))
    if count > 1 and (missing := [name for name in NEEDED if name not in given]):
        raise ConfigError(
            f"WORLD_SIZE={count} in the environment: it is left over, or its launcher did not set {listing(missing)}. "
            f"{advice}"
        )
    for name, size, total in (("RANK", count, "WORLD_SIZE"), ("LOCAL_RANK", local, "LOCAL_WORLD_SIZE")):
        if int(given.get(name, "0")) >= size:
            raise ConfigError(
                f"{name}={given[name]} in the environment: with {total}={size} it must be at most {size - 1}. {advice}"
            )
    return count, local
