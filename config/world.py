"""The variables by which a launcher tells each process its rank: all there and sound, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping

from common.errors import ConfigError
from common.suggest import listing

NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
NEEDED = (*NUMBERS, "MASTER_ADDR")
"""What several processes need to find each other."""


def world(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """How many ranks a run has, on all nodes and on this one.

    Raises:
        ConfigError: if a launcher's variables are not whole, as after `export WORLD_SIZE=2` in an interactive shell.
    """
    there = {name: environment[name] for name in NEEDED if environment.get(name)}
    advice = f"Start it by `composer -n RANKS main.py ...`; for one process, type first: unset {' '.join(there)}"
    for name in NUMBERS:
        if not there.get(name, "0").isascii() or not there.get(name, "0").isdigit():
            raise ConfigError(f"{name}={there[name]} in the environment: it must be a whole number. {advice}")
    count, local = int(there.get("WORLD_SIZE", "1")), int(there.get("LOCAL_WORLD_SIZE", "1"))
    if count > 1 and (missing := [name for name in NEEDED if name not in there]):
        raise ConfigError(
            f"WORLD_SIZE={count} in the environment: a launcher left it there, or was to set {listing(missing)}, too. "
            f"{advice}"
        )
    for name, size, all_of in (("RANK", count, "WORLD_SIZE"), ("LOCAL_RANK", local, "LOCAL_WORLD_SIZE")):
        if int(there.get(name, "0")) >= size:
            raise ConfigError(
                f"{name}={there[name]} in the environment: of {size} ({all_of}) the last is {size - 1}. {advice}"
            )
    return count, local
