"""Save each rank's own state in a file next to the checkpoint, if ranks train different models.

The checkpoint itself has the mean of all ranks' weights, so any program can read it. A run on the same number of ranks
also loads the ranks' states and resumes bit for bit; on another number of ranks it starts from the mean.
"""

import tempfile
from pathlib import Path
from typing import Any

from composer.core import State
from composer.utils import dist

from common.folders import Folder
from recipes.algorithms._base import ours
from training.checkpoint_files import is_whole, name_of, write
from training.devices import on_all_ranks, say
from training.guards import average_batchnorm
from training.loading import differences, shapes
from training.saved import CheckpointError, read_file


def wanted(state: State) -> bool:
    """Whether an algorithm gives the ranks different weights."""
    return dist.get_world_size() > 1 and any(algorithm.ranks_differ for algorithm in ours(state.algorithms))


def save(state: State, folder: Folder) -> None:
    """Write this rank's state if ranks differ; every rank calls this, and all raise the first error.

    Call it before writing the checkpoint, so that a kill in between leaves no checkpoint without these files, and while
    the training weights are in the model.
    """
    if not wanted(state):
        return
    average_batchnorm(state)
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizers[0].state_dict()["state"],
        "scaler": state.scaler.state_dict() if state.scaler else {},
        "parts": {type(part).__qualname__: part.state_dict() for part in [*state.algorithms, *state.callbacks]},
    }
    on_all_ranks(write, content, folder, _name(state))


def restore(state: State, folder: Folder) -> None:
    """Restore this rank's state from next to the checkpoint that the Trainer has loaded, or print why not.

    The model must be wrapped in DDP already, because wrapping makes all ranks' weights equal.
    """
    if not wanted(state):
        return
    with tempfile.TemporaryDirectory() as scratch:
        content = on_all_ranks(_read, state, folder, _name(state), Path(scratch))
    number = sum(dist.all_gather_object(content is not None))
    if content is None or number < dist.get_world_size():
        say(
            f"{folder}: has per-rank weights for {number} of these {dist.get_world_size()} ranks; all ranks start from "
            "the checkpoint's model, the mean of the ranks that saved it"
        )
        return
    state.model.load_state_dict(content["model"])
    optimizer = state.optimizers[0]
    # The rest of an optimizer's state_dict is hyperparameters, which the configuration has set.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": content["optimizer"]})
    if state.scaler:
        state.scaler.load_state_dict(content["scaler"])
    for part in [*state.algorithms, *state.callbacks]:
        if type(part).__qualname__ in content["parts"]:
            part.load_state_dict(content["parts"][type(part).__qualname__])


def _name(state: State) -> str:
    """Return a name such as 'ep1-ba40-own0-of-4.pt'; another number of ranks looks for other names."""
    return name_of(state).replace("rank0", f"own{dist.get_global_rank()}-of-{dist.get_world_size()}")


def _read(state: State, folder: Folder, name: str, scratch: Path) -> dict[str, Any] | None:
    """Return the content of a rank's file; None if it is missing or damaged."""
    if name not in folder.names():
        return None
    path = folder.fetch(name, scratch)
    if not is_whole(path):
        return None
    content = read_file(path, f"{folder}/{name}")
    if faults := differences(shapes(content["model"]), shapes(state.model.state_dict())):
        raise CheckpointError(f"{folder}/{name} does not fit this model: {'; '.join(faults)}", "Remove it")
    return content
