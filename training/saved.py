"""Read checkpoints: verify their checksums, and load data only, because a pickle can run code."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from composer.utils import dist
from torch.torch_version import TorchVersion

from common.errors import named
from common.folders import Folder
from config import TrainingError
from training.checkpoint_files import is_whole
from training.devices import on_all_ranks, on_local_leaders

# Types in this project's checkpoints besides tensors and Python's own: NumPy's random state, clocks, torch's version.
# Only uint32 of NumPy's dtypes: `__setstate__` of a structured dtype can corrupt memory.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_DATA: list[Any] = [
    np.ndarray,
    np.dtype,
    np.dtypes.UInt32DType,
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),  # NumPy before 2.0
    timedelta,
    TorchVersion,
]
_NAME = re.compile(r"\bGLOBAL ([\w.]+)")  # in torch's error about a type that it does not load


class CheckpointError(TrainingError):
    """A checkpoint that cannot be used: `facts` start with its address; tools replace the advice by their own."""

    def __init__(self, facts: str, advice: str) -> None:
        self.facts = facts
        super().__init__(facts, advice)

    def __str__(self) -> str:
        return "{}. {}".format(*self.args)


class NotDataError(TrainingError):
    """A checkpoint with objects that cannot be loaded without running code."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint's content and the address that it was read from."""

    address: str
    content: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        """The state_dict of Composer's State; `model` in it maps names to tensors."""
        return self.content["state"]


def read_checkpoint(
    folder: Folder, name: str, trusted: bool = False, fetched: tuple[Path, Path] | None = None
) -> Saved:
    """Read a checkpoint on every rank, after fetching and verifying it once per node.

    A `trusted` checkpoint may run code. `fetched` is fetch_whole's result on this rank; None to call it on the leader
    of each node. UserError on every rank if the checkpoint is damaged, is not one, or needs to run code.
    """
    scratch, path = on_local_leaders(lambda: fetched or fetch_whole(folder, name))
    try:
        content = on_all_ranks(_read_state, path, f"{folder}/{name}", trusted)
    finally:
        if dist.get_local_rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)
    return Saved(f"{folder}/{name}", content)


def read_file(path: Path, address: str, trusted: bool = False) -> Any:
    """Read a file of tensors, without running code unless `trusted`; NotDataError names an object that is not data."""
    try:
        return load_data(path, trusted)
    except UnpicklingError as error:
        raise NotDataError(
            f"{address}: it holds {object_in(error) or 'an object'}, which is not data; nothing was loaded or run. "
            "Only if you trust its author, let it run code: set load_unsafe_pickle=true (tools.evaluate: "
            "--load-unsafe-pickle)"
        ) from error
    except Exception as error:  # any, because a foreign archive can fail anywhere in torch
        raise _foreign(address) from error


def load_data(path: Path, trusted: bool = False, more: Sequence[type] = ()) -> Any:
    """Call torch.load on the CPU; `more` types count as data. Raises whatever torch raises."""
    with torch.serialization.safe_globals([*_DATA, *more]):
        return torch.load(path, map_location="cpu", weights_only=not trusted)


def object_in(error: UnpicklingError) -> str | None:
    """Return the name of the object that torch did not load, because it is not data; None if that is not the reason."""
    name = _NAME.search(str(error))
    return name[1] if name else None


def fetch_whole(folder: Folder, name: str) -> tuple[Path, Path]:
    """Fetch a checkpoint, verify it, and return a new folder, for the caller to remove, and the checkpoint's path."""
    scratch = Path(tempfile.mkdtemp(prefix="checkpoint-"))
    try:
        path = folder.fetch(name, scratch)
        if not is_whole(path):
            raise _broken(path, f"{folder}/{name}")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return scratch, path


def _broken(path: Path, address: str) -> CheckpointError:
    with path.open("rb") as file:
        start = file.read(4)
    if start in (b"PK\x03\x04", b"", b"\0\0\0\0"):  # an archive, or a file left by a full disk or a crash
        return CheckpointError(f"{address}: is damaged (cut short or changed)", "Load another one")
    return _foreign(address)


def _read_state(path: Path, address: str, trusted: bool) -> dict[str, Any]:
    content = read_file(path, address, trusted)
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not _are_tensors(state.get("model")):
        raise _foreign(address, f"; it holds bare weights ({named(list(content), 3)})" if _are_tensors(content) else "")
    return content


def _are_tensors(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and torch.is_tensor(v) for k, v in value.items())


def _foreign(address: str, what: str = "") -> CheckpointError:
    return CheckpointError(
        f"{address}: is not a checkpoint written by this project{what}",
        "Give one that a run saved; to start from a file of weights, type load_path=null load_weights_only=false "
        f"model.weights={shlex.quote(address)}",
    )
