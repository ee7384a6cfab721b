"""Find the file that model.weights names, on a disk or in S3. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from common.addresses import is_s3
from common.errors import ConfigError, named
from common.folders import Folder, open_folder, split
from common.suggest import closest

TORCHVISION = "torchvision"
LATEST, BEST = "latest-rank0.pt", "best-rank0.pt"  # of a run's checkpoints
CONFIG = "config.json"  # of a timm or Hub folder
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", BEST, LATEST)
"""Files that stand for their folder, the first that exists: those of a timm or Hub folder, and a run's checkpoints."""
SUFFIXES = (".safetensors", ".pth", ".bin", ".tar", ".pt")  # the surest first: a .pt may be a program
_SHARD = re.compile(r"-\d+-of-(\d+)\.(?:safetensors|bin)$")  # one of the files of a large network
ALLOWED = (
    "a file (.pth, .pt, .bin, .pth.tar or .safetensors), a run's folder, or a timm or Hub folder, here or in S3; "
    f"or {TORCHVISION}, or {TORCHVISION}:IMAGENET1K_V1"
)


def torchvision_name(weights: str) -> str | None:
    """Return the NAME of torchvision:NAME, empty for torchvision alone; None for a path."""
    kind, _, name = weights.partition(":")
    return name if kind == TORCHVISION else None


def find(weights: str) -> tuple[Folder, str]:
    """Return the folder and the name of a file of weights; ConfigError if there is none."""
    path = weights.rstrip("/")
    folder, name = split(path)
    siblings = folder.names()
    if name in siblings:
        _check_whole(path)
        return folder, name
    names: list[str] = []
    is_folder = f"{name}/" in siblings or Path(path).is_dir()
    for below in ("", "checkpoints/") if is_folder else ():
        inside = open_folder(f"{path}/{below}".rstrip("/"))
        held = inside.names()
        if chosen := next((name for name in IN_FOLDERS if name in held), None):
            return inside, chosen
        names += [f"{below}{name}" for name in held]
    if not is_folder:
        near = closest(name, [entry.rstrip("/") for entry in siblings])
        meant = f"{path.removesuffix(name)}{near}" if near else closest(weights, [TORCHVISION])
        advice = f"did you mean model.weights={meant}?" if meant else f"give {ALLOWED}"
        here = "" if is_s3(path) or Path(path).is_absolute() else f" (looked in {Path.cwd()})"
        raise ConfigError(f"model.weights: no such file or folder: {weights}{here}; {advice}")
    files = [f"{path}/{name}" for suffix in SUFFIXES for name in names if name.endswith(suffix)]
    if files:
        _check_whole(files[0])
        raise ConfigError(f"model.weights: {path} is a folder; name its file: model.weights={files[0]}")
    raise ConfigError(f"model.weights: {path} holds {named(names, 3) or 'nothing'}, and no weights; give {ALLOWED}")


def _check_whole(file: str) -> None:
    """Raise a ConfigError for one of several files that hold the tensors together, as large networks are saved."""
    shard = _SHARD.search(file)
    if shard and int(shard[1]) > 1:
        raise ConfigError(
            f"model.weights: {file} holds the tensors of a network together with {int(shard[1]) - 1} more files; read "
            "them all, as with safetensors.torch.load_file, save the tensors as one file, and give that"
        )
