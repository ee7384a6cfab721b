"""The index.json of MDS shards: what is believed of it, whoever wrote it.

Every reader of shards takes it from here, because names in it become paths to be written and removed, and its numbers
become memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from streaming.base.compression import is_compression

from common.errors import DataError, named
from loaders.storage.columns import column_fault

INDEX, CLASSES = "index.json", "classes.json"
_LONGEST = 200  # bytes of a file's name: file systems allow 255, and what is being written has a longer one
_DRIVE = re.compile(r"[A-Za-z]:")
_AGAIN = "Convert the data set again."


class _Fault(ValueError):
    """What is wrong with an index."""


def parse_index(data: bytes, place: str) -> dict[str, Any]:
    """An index whose names are those of files below its folder, and whose numbers and columns fit together.

    Args:
        data: the content of index.json.
        place: where it is stored, for messages.

    Raises:
        DataError: it is malformed, lists no shards, names files elsewhere, or its columns are no images with labels.
    """
    try:
        index = json.loads(data)
        shards = index["shards"]
        if not isinstance(shards, list):
            raise TypeError("its shards are not a list")
        for number, shard in enumerate(shards):
            try:
                _check_shard(shard)
            except _Fault:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise type(error)(f"shard {number}: {error.args[0] if error.args else error}") from error
    except _Fault as error:
        raise DataError(f"{place}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{place}: is malformed ({what}). {_AGAIN}") from error
    if not shards:
        raise DataError(f"{place}: lists no shards. {_AGAIN}")
    if fault := _names_fault(shards):
        raise DataError(f"{place}: {fault}")
    return dict(index)


def files_of(shard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The files that a shard may be stored in: uncompressed, and compressed where it is stored so."""
    return (info for info in (shard["raw_data"], shard["zip_data"]) if info)


def _check_shard(shard: Any) -> None:
    """Look at one entry's types, sizes and columns.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or is of another kind.
    """
    if (shard["version"], shard["format"]) != (2, "mds"):
        raise ValueError(f"it is of format {shard['format']} {shard['version']}, not mds 2")
    names, encodings, sizes = (shard[f"column_{what}"] for what in ("names", "encodings", "sizes"))
    for values in (names, encodings):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TypeError("its columns' names and encodings are not lists of texts")
    if not len(names) == len(set(names)) == len(encodings) == len(sizes):
        raise ValueError("its columns' names, encodings and sizes do not fit together")
    for size in (*sizes, *(info["bytes"] for info in files_of(shard)), shard["samples"]):
        if size is not None and (type(size) is not int or size < 0):
            raise TypeError(f"{size!r} is not a number of bytes or samples")
    if not {"x", "y"} <= set(names):
        raise _Fault(f"has the columns {named(names)}, but images are read from x and their classes from y. {_AGAIN}")
    if fault := column_fault(names, encodings, sizes):
        raise _Fault(fault)
    least = 8 + shard["samples"] * (4 + sum(4 if size is None else size for size in sizes))
    if shard["raw_data"]["bytes"] < least:
        raise ValueError(f"{shard['samples']} samples take {least} bytes or more, not {shard['raw_data']['bytes']}")
    if shard["raw_data"]["bytes"] >= 2**32:
        raise ValueError("a shard of 2^32 bytes or more has no room for the places of its samples")
    if shard["zip_data"] and not is_compression(shard["compression"]):
        raise ValueError(f"its compression, {shard['compression']!r}, is not known")
    for info in files_of(shard):
        if not all(isinstance(text, str) for text in dict(info["hashes"]).values()):
            raise TypeError("its hashes are not texts")


def _names_fault(shards: list[dict[str, Any]]) -> str | None:
    """Why the names of the shards' files cannot be used; None where they can."""
    names = [info["basename"] for shard in shards for info in files_of(shard)]
    for name in names:
        if not _is_plain(name):
            return (
                f"names the file {name!r:.100}; a shard lies beside index.json or in a folder there, in a name without "
                f"'..', backslashes or control characters. {_AGAIN}"
            )
    taken: set[str] = set()
    for name in names:  # without case, as some file systems are
        if name.casefold() in taken:
            return f"names the file {name!r} twice; each shard has a file of its own. {_AGAIN}"
        taken.add(name.casefold())
    for name in taken:
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            if (folder := "/".join(folders[:depth])) in taken:
                return f"names {folder!r} as a file and as a folder. {_AGAIN}"
    return None


def _is_plain(name: object) -> bool:
    """Whether a name is that of a file below a folder, and of none that this program keeps there itself."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or _DRIVE.match(name):
        return False
    parts = name.split("/")
    if any(not part or part.startswith(".") or part != part.strip() or len(part.encode()) > _LONGEST for part in parts):
        return False
    own = parts[0].casefold().startswith((INDEX, CLASSES)) or parts[-1].casefold().endswith((".part", ".tmp"))
    return not own and len(parts) < 10
