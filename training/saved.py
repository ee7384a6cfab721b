"""A checkpoint as it is read: verified by its checksums, and as data alone, because a pickle can also hold programs."""

from __future__ import annotations

import re
import shutil
import tempfile
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

# What the checkpoints of this project hold beside tensors and Python's own types: NumPy's random state, clocks, and
# torch's version. Of NumPy's types uint32 alone: `__setstate__` of a structured one can be made to corrupt memory.
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
_NAME = re.compile(r"\bGLOBAL ([\w.]+)")  # in torch's sentence about what it did not load


class CheckpointError(TrainingError):
    """A checkpoint that cannot be used.

    Args:
        facts: what is wrong with it, beginning with its address.
        advice: what to type in its place; tools say something else here.
    """

    def __init__(self, facts: str, advice: str) -> None:
        self.facts = facts
        super().__init__(facts, advice)

    def __str__(self) -> str:
        return "{}. {}".format(*self.args)


class NotDataError(TrainingError):
    """A checkpoint with objects in it that only their own code can restore."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint's content and the address that it was read from."""

    address: str
    content: dict[str, Any]

    @property
    def state(self) -> dict[str, Any]:
        """What Composer's State saved; `model` is among it: tensors by name."""
        return self.content["state"]


def read_checkpoint(
    folder: Folder, name: str, trusted: bool = False, fetched: tuple[Path, Path] | None = None
) -> Saved:
    """Read a checkpoint on every rank; it is fetched and verified once per node, into a private folder if it is remote.

    Args:
        folder: where it is.
        name: its name there.
        trusted: whether to run the code of what is no data.
        fetched: what fetch_whole returned on this rank; None if the leader of its node is to call it.

    Raises:
        UserError: on every rank, if it is damaged or is no checkpoint, or a NotDataError.
    """
    scratch, path = on_local_leaders(lambda: fetched or fetch_whole(folder, name))
    try:
        content = on_all_ranks(_read_state, path, f"{folder}/{name}", trusted)
    finally:
        if dist.get_local_rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)
    return Saved(f"{folder}/{name}", content)


def read_file(path: Path, address: str, trusted: bool = False) -> Any:
    """The content of a file of tensors, without running any code of it unless it is trusted.

    Raises:
        NotDataError: it holds more than data; the sentence names the first such object.
        CheckpointError: nothing can be read from it.
    """
    try:
        with torch.serialization.safe_globals(_DATA):
            return torch.load(path, map_location="cpu", weights_only=not trusted)
    except UnpicklingError as error:
        found = _NAME.search(str(error))
        raise NotDataError(
            f"{address}: it holds {found[1] if found else 'an object'}, which is not data; nothing of it was loaded or "
            "run. Only if you trust who made the file, let it run its code: load_unsafe_pickle=true (tools.evaluate: "
            "--load-unsafe-pickle)"
        ) from error
    except Exception as error:  # whatever a foreign archive makes torch say
        raise _foreign(address) from error


def fetch_whole(folder: Folder, name: str) -> tuple[Path, Path]:
    """Fetch a checkpoint and verify it: a new folder, to be removed by the caller, and where the checkpoint is.

    Raises:
        CheckpointError: if it is damaged or is no checkpoint.
    """
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
    if start in (b"PK\x03\x04", b"", b"\0\0\0\0"):  # of an archive, or of a file that a full disk or a crash left
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
    return CheckpointError(f"{address} is no checkpoint of a run{what}", "Name one that a run has saved")
