"""How to unpack the archives that are not read as they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from common.errors import named

_PACKED = re.compile(r"(.+?)(\.zip|\.tar\.(?:bz2|xz|zst)|\.tbz2?|\.txz|\.7z|\.rar)", re.I)
READ = "Only .tar, .tar.gz and .tgz are read as they are"


def unpacking(file: Path) -> str | None:
    """Return what to say of a packed file, and how to unpack it into a folder of its name; None for other files."""
    match = _PACKED.fullmatch(file.name)
    if match is None:
        return None
    folder = file.with_name(match[1])
    commands = {
        ".zip": [["unzip", "-q", file, "-d", folder]],
        ".7z": [["7z", "x", file, f"-o{folder}"]],
        ".rar": [["unrar", "x", file, f"{folder}/"]],
    }
    unpack = commands.get(match[2].lower(), [["mkdir", "-p", folder], ["tar", "-xf", file, "-C", folder]])
    typed = " && ".join(shlex.join(map(str, words)) for words in unpack)
    return f"is packed as {match[2].lower()}. {READ}; unpack it: {typed}"


def packed_inside(root: Path) -> str | None:
    """Return what to say of a folder that holds packed files and no folders; None for others."""
    entries = sorted(root.iterdir())
    packed = [entry for entry in entries if entry.is_file() and unpacking(entry)]
    if not packed or any(entry.is_dir() for entry in entries):
        return None
    return f"{root}: holds {named([entry.name for entry in packed])}. {packed[0]} {unpacking(packed[0])}"
