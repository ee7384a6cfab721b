"""Give a run its id at the trackers: a new one, or after an interruption the same one again."""

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
# Environment variables by which a user chooses the tracker's run.
_CHOSEN = {"wandb": ("WANDB_RUN_ID", "WANDB_RESUME"), "mlflow": ("MLFLOW_RUN_ID",)}


@dataclass(frozen=True)
class Tracked:
    """A run's identity at its trackers."""

    id: str  # unique to the run, and the same after every resume
    goes_on: bool  # whether an earlier process of this run used the id


def tracked(run: Run, folder: Path) -> Tracked:
    """Return the id in environment.json if the run resumes, else a new one."""
    if run.config.autoresume:
        earlier = earlier_run.mapping(folder / "environment.json").get(ID)
        if isinstance(earlier, str):
            return Tracked(earlier, True)
    return Tracked(secrets.token_hex(4), False)


def arguments(name: str, given: Mapping[str, Any], tracked: Tracked | None) -> dict[str, Any]:
    """Return a logger's arguments, with the run to continue at W&B or MLflow unless the user has chosen one.

    Comet and Neptune start a new run.
    """
    args = dict(given)
    kind = registry.canonical("logger", name)
    if tracked is None or any(os.environ.get(variable) for variable in _CHOSEN.get(kind, ())):
        return args
    if kind == "wandb":
        rank = dist.get_global_rank()  # with rank_zero_only=false, each rank has a run
        chosen = {"id": f"{tracked.id}-{rank}" if rank else tracked.id, "resume": "allow"}
        init_kwargs = args.get("init_kwargs") or {}
        args["init_kwargs"] = init_kwargs if chosen.keys() & init_kwargs.keys() else init_kwargs | chosen
    elif kind == "mlflow" and tracked.goes_on:
        args.setdefault("resume", True)  # MLflow then looks for a run of this name
    return args
