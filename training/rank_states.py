"""Each rank's own state, in files beside a checkpoint, where ranks do not train one and the same model.

The checkpoint itself holds the mean of all ranks' weights, so that everything else reads it as any other. A run on as
many ranks takes up the rest too, and goes on to the bit; one on another number of ranks starts from the mean.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from composer.core import Algorithm, Callback, State
from composer.utils import dist

from common.folders import Folder
from config import UserError
from recipes.algorithms._base import ours
from training.checkpoint_files import is_whole, write
from training.devices import on_all_ranks, say
from training.fitting import differences, shapes
from training.guards import average_batchnorm
from training.saved import CheckpointError, read_file

_PATTERN = re.compile(r"^(ep\d+-ba\d+)-own\d+-of-\d+\.pt$")


def wanted(state: State) -> bool:
    """Whether an algorithm gives the ranks different weights."""
    return dist.get_world_size() > 1 and any(algorithm.ranks_differ for algorithm in ours(state.algorithms))


def save(state: State, folder: Folder, base: str) -> None:
    """Write this rank's state, if ranks differ; every rank calls this, and all raise what any of them met.

    Args:
        state: the run, with the weights that it trains in the model.
        folder: where the checkpoint goes, afterwards: so that one without these files is not a newer one than they are.
        base: the checkpoint's name without "-rank0.pt".
    """
    if not wanted(state):
        return
    average_batchnorm(state)
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizers[0].state_dict()["state"],
        "scaler": state.scaler.state_dict() if state.scaler else {},
        "parts": {type(part).__qualname__: part.state_dict() for part in _parts(state)},
    }
    fault = None
    try:
        write(content, folder, _name(base))
    except UserError as error:
        fault = error
    for met in dist.all_gather_object(fault):
        if met is not None:
            raise met


def restore(state: State, folder: Folder, base: str) -> None:
    """Take up this rank's state from beside the checkpoint that the Trainer has loaded; say so if that cannot be.

    Args:
        state: the run, its model wrapped for distributed training (which makes all ranks' weights equal).
        folder: where the checkpoint was.
        base: the checkpoint's name without "-rank0.pt".
    """
    if not wanted(state):
        return
    with tempfile.TemporaryDirectory() as scratch:
        content = on_all_ranks(_read, state, folder, _name(base), Path(scratch))
    there = sum(dist.all_gather_object(content is not None))
    if content is None or there < dist.get_world_size():
        say(
            f"{folder}: weights of their own are kept there for {there} of these {dist.get_world_size()} ranks; "
            "all start from the one model of the checkpoint, the mean of the ranks that saved it"
        )
        return
    state.model.load_state_dict(content["model"])
    optimizer = state.optimizers[0]
    # The rest of an optimizer's state_dict are hyperparameters, which the configuration has set.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": content["optimizer"]})
    if state.scaler:
        state.scaler.load_state_dict(content["scaler"])
    for part in _parts(state):
        if type(part).__qualname__ in content["parts"]:
            part.load_state_dict(content["parts"][type(part).__qualname__])


def tidy(folder: Folder, kept: Iterable[str]) -> None:
    """Delete the files beside checkpoints that are no longer kept.

    Args:
        folder: the checkpoints' folder.
        kept: names of checkpoints without "-rank0.pt".
    """
    kept = set(kept)
    for name in folder.names():
        if (match := _PATTERN.match(name)) and match[1] not in kept:
            folder.delete(name)


def _parts(state: State) -> list[Algorithm | Callback]:
    """What keeps a state of its own: moving averages, sums of losses, clocks."""
    return [*state.algorithms, *state.callbacks]


def _name(base: str) -> str:
    """ep1-ba40 -> ep1-ba40-own0-of-4.pt: ranks of another number do not find it."""
    return f"{base}-own{dist.get_global_rank()}-of-{dist.get_world_size()}.pt"


def _read(state: State, folder: Folder, name: str, scratch: Path) -> dict[str, Any] | None:
    """The content of a rank's file; None if it is not there, or damaged."""
    if name not in folder.names():
        return None
    path = folder.fetch(name, scratch)
    if not is_whole(path):
        return None
    content = read_file(path, f"{folder}/{name}")
    if faults := differences(shapes(content["model"]), shapes(state.model.state_dict())):
        raise CheckpointError(f"{folder}/{name} does not fit this model: {'; '.join(faults)}", "Remove it")
    return content
