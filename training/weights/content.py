"""The tensors in a file of weights, read without running code: torch's formats, safetensors, a run's checkpoint."""

import argparse
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from common.errors import named
from common.pointers import POINTER, is_pointer
from config import ConfigError
from training.checkpoint_files import is_whole
from training.saved import load_data, object_in

PARTS = (("state", "model"), ("state_dict_ema",), ("model_ema",), ("state_dict",), ("model_state_dict",), ("model",))
"""Where files hold their weights, the first that exists: a run's checkpoint, averaged weights, the trained ones."""
AVERAGED = ("state_dict_ema", "model_ema")
_OF_PROGRAMS = ("/constants.pkl", "serialized_exported_program.json", "/archive_format")  # records in an archive
KINDS = "a torch file (.pth, .pt, .bin, .pth.tar) of tensors, or .safetensors"


@dataclass(frozen=True)
class Content:
    """Tensors by name, and what a run's checkpoint says about them."""

    tensors: dict[str, Tensor]
    part: str = ""  # the keys of the file under which they were; empty if it holds nothing else
    classes: list[str] | None = None  # by label
    surgery: dict[str, str] = field(default_factory=dict)  # algorithms, by class -> their reprs


def read_content(path: Path, address: str) -> Content:
    """Read a file of weights; ConfigError if it is damaged, is none, or holds more than data."""
    content = _read(path, f"model.weights: {address}")
    for keys in PARTS:
        inside = content
        for key in keys:
            inside = inside.get(key) if isinstance(inside, Mapping) else None
        if tensors := tensors_of(inside):
            about = _of_a_run(content["state"]) if keys[0] == "state" else {}
            return Content(tensors, ".".join(keys), **about)
    entries = content.items() if isinstance(content, Mapping) else ()
    held = {"": tensors_of(content)} | {str(key): tensors_of(value) for key, value in entries}
    most = max(map(len, held.values()))
    likely = [part for part, tensors in held.items() if 2 * len(tensors) > most]
    if len(likely) == 1:
        return Content(held[likely[0]], likely[0])
    if likely:
        several = " and ".join(part or "its top" for part in likely)
        what = f"tensors under {several}; save those you mean to a file of their own"
    else:
        given = named(list(held)[1:], 3) or "nothing" if isinstance(content, Mapping) else type(content).__name__
        what = f"{given}, and no tensors by name; give {KINDS}"
    raise ConfigError(f"model.weights: {address} holds {what}")


def tensors_of(value: object) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name; empty if it is none."""
    entries = value.items() if isinstance(value, Mapping) else ()
    return {name: tensor for name, tensor in entries if isinstance(name, str) and isinstance(tensor, Tensor)}


def _of_a_run(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes and algorithms of a checkpoint's state, as fields of Content; it may be anyone's."""
    classes: Any = state
    for key in ("dataset_state", "train", "classes"):
        classes = classes.get(key) if isinstance(classes, Mapping) else None
    surgery = {}
    algorithms = state.get("algorithms")
    for entry in algorithms if isinstance(algorithms, list | tuple) else ():
        if isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[1], Mapping):
            surgery[str(entry[0])] = str(entry[1].get("repr", ""))
    return {"classes": list(map(str, classes)) if isinstance(classes, list | tuple) else None, "surgery": surgery}


def _read(path: Path, what: str) -> Any:
    """Read a file by what it is, whatever it is called; `what` starts the message if that fails."""
    damaged = ConfigError(f"{what} is damaged (cut short or changed); copy or download it again")
    if is_pointer(path):
        raise ConfigError(f"{what} {POINTER}")
    with path.open("rb") as file:
        start = file.read(16)
    try:
        if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < path.stat().st_size:
            return load_file(path)
        records = _records(path) if start[:2] == b"PK" else []
        if any(name.endswith(_OF_PROGRAMS) for name in records):
            raise ConfigError(f"{what} is a program of TorchScript or torch.export, which would run code; give {KINDS}")
        if records and not any(name.endswith("/data.pkl") for name in records):
            raise ConfigError(f"{what} is an archive that torch did not write ({named(records, 2)}); give {KINDS}")
        if start[:2] == b"PK" and not is_whole(path):
            raise damaged
        if start[:1] == b"\x80" and start[2:4] != b"\x8a\n":  # torch's files start with a large number
            raise ConfigError(f"{what} is a pickle that torch did not write; nothing was loaded or run. Give {KINDS}")
        if start[:2] == b"PK" or start[:1] == b"\x80":
            # timm's and torchvision's own training scripts save their options, of this plain class.
            return load_data(path, more=[argparse.Namespace])
    except UnpicklingError as error:
        if kind := object_in(error):
            raise ConfigError(
                f"{what}: it holds {kind}, which is not data; nothing was loaded or run. Ask its author for "
                ".safetensors, or for torch.save(model.state_dict(), FILE)"
            ) from error
        raise damaged from error
    except ConfigError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in torch
        raise damaged from error
    if not start.strip(b"\0") or path.suffix == ".safetensors":
        raise damaged
    raise ConfigError(f"{what} is not a file of weights; give {KINDS}")


def _records(path: Path) -> list[str]:
    """Return the names of an archive's records; none if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises all sorts of errors for damaged archives
        return []
