"""Which run of a tracker this run is: one of its own, or after an interruption the one that it goes on with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from composer.utils import dist

from config import Run
from recipes import registry
from training import earlier_run

ID = "tracker_id"  # its key in environment.json
_CHOSEN = {"wandb": ("WANDB_RUN_ID", "WANDB_RESUME"), "mlflow": ("MLFLOW_RUN_ID",)}  # by the user, where one is set


@dataclass(frozen=True)
class Tracked:
    """What a run is called at its trackers.

    Attributes:
        id: the same from its first start to its end, another for each run.
        goes_on: whether an earlier process of this run was tracked under it.
    """

    id: str
    goes_on: bool


def tracked(run: Run, folder: Path) -> Tracked:
    """The id that the interrupted run in a folder left in environment.json, or a new one."""
    if run.config.autoresume:
        its = earlier_run.mapping(folder / "environment.json").get(ID)
        if isinstance(its, str):
            return Tracked(its, True)
    return Tracked(secrets.token_hex(4), False)


def arguments(name: str, given: Mapping[str, Any], its: Tracked | None) -> dict[str, Any]:
    """A tracker's arguments with the run that it is to go on with, unless the user has chosen one.

    Args:
        name: of the tracker, as in a YAML.
        given: what the configuration says.
        its: None: whatever the tracker makes of it. Comet and Neptune are given nothing: they make a new run.
    """
    args: dict[str, Any] = dict(given)
    kind = registry.canonical("logger", name)
    if its is None or any(os.environ.get(variable) for variable in _CHOSEN.get(kind, ())):
        return args
    if kind == "wandb":
        rank = dist.get_global_rank()  # with rank_zero_only=false each has a run of its own
        chosen = {"id": f"{its.id}-{rank}" if rank else its.id, "resume": "allow"}
        own = args.get("init_kwargs") or {}
        args["init_kwargs"] = own if chosen.keys() & own.keys() else own | chosen
    elif kind == "mlflow" and its.goes_on:
        args.setdefault("resume", True)  # it looks for the run of this name
    return args
