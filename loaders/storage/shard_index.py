"""Parse and check the index.json of MDS shards.

It is untrusted input for all readers of shards: its names become paths that are written and removed, its numbers
become memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from streaming.base.compression import is_compression

from common import s3
from common.errors import DataError, named
from common.store_faults import StoreOutOfReach
from loaders.storage.columns import column_fault
from loaders.transport.remote import join

INDEX, CLASSES = "index.json", "classes.json"
_LONGEST = 200  # bytes of a file name: file systems allow 255, and a file being written has a longer name
_DRIVE = re.compile(r"[A-Za-z]:")
_AGAIN = "Convert the data set again."


class _Fault(ValueError):
    """A fault of an index, with a complete message."""


def are_shards(address: str) -> bool:
    """Whether an address in S3 holds MDS shards. Lists nothing, which the credentials for shards need not allow."""
    for split in ("train", "val"):
        try:
            s3.size_of(join(address, split, INDEX))
        except StoreOutOfReach:
            raise
        except DataError:
            continue
        return True
    return False


def parse_index(data: bytes, place: str) -> dict[str, Any]:
    """Parse the index.json that is stored at `place`, and check its file names, numbers and columns.

    Raises:
        DataError: it is malformed, lists no shards, names files elsewhere, or its columns hold no images with labels.
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
        raise DataError(f"{place}: is malformed ({type(error).__name__}: {error}). {_AGAIN}") from error
    if not shards:
        raise DataError(f"{place}: lists no shards. {_AGAIN}")
    if fault := _names_fault(shards):
        raise DataError(f"{place}: {fault}")
    return dict(index)


def files_of(shard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the files that a shard may be stored in: uncompressed, and compressed if it has such a file."""
    return (info for info in (shard["raw_data"], shard["zip_data"]) if info)


def _check_shard(shard: Any) -> None:
    """Check the types, sizes and columns of one entry.

    Raises:
        KeyError, TypeError, ValueError: something is missing or wrong.
    """
    if (shard["version"], shard["format"]) != (2, "mds"):
        raise ValueError(f"its format is {shard['format']} {shard['version']}, not mds 2")
    names, encodings, sizes = (shard[f"column_{key}"] for key in ("names", "encodings", "sizes"))
    for values in (names, encodings):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise TypeError("its column names and encodings are not lists of strings")
    if not len(names) == len(set(names)) == len(encodings) == len(sizes):
        raise ValueError("its column names, encodings and sizes do not match")
    for size in (*sizes, *(info["bytes"] for info in files_of(shard)), shard["samples"]):
        if size is not None and (type(size) is not int or size < 0):
            raise TypeError(f"{size!r} is not a number of bytes or samples")
    if not {"x", "y"} <= set(names):
        raise _Fault(f"has the columns {named(names)}; images must be in x and their classes in y. {_AGAIN}")
    if fault := column_fault(names, encodings, sizes):
        raise _Fault(fault)
    least = 8 + shard["samples"] * (4 + sum(4 if size is None else size for size in sizes))
    if shard["raw_data"]["bytes"] < least:
        raise ValueError(f"{shard['samples']} samples take at least {least} bytes, not {shard['raw_data']['bytes']}")
    if shard["raw_data"]["bytes"] >= 2**32:
        raise ValueError("a shard must be smaller than 2^32 bytes, the limit of its samples' offsets")
    if shard["zip_data"] and not is_compression(shard["compression"]):
        raise ValueError(f"its compression, {shard['compression']!r}, is unknown")
    for info in files_of(shard):
        if not all(isinstance(text, str) for text in dict(info["hashes"]).values()):
            raise TypeError("its hashes are not strings")


def _names_fault(shards: list[dict[str, Any]]) -> str | None:
    """Explain why the names of the shards' files cannot be used; None if they can."""
    names = [info["basename"] for shard in shards for info in files_of(shard)]
    for name in names:
        if not _is_plain(name):
            return (
                f"names the file {name!r:.100}; a shard must be next to index.json or in a folder there, and its name "
                f"must not contain '..', backslashes or control characters. {_AGAIN}"
            )
    taken: set[str] = set()
    for name in names:  # some file systems ignore case
        if name.casefold() in taken:
            return f"names the file {name!r} twice; each shard needs a separate file. {_AGAIN}"
        taken.add(name.casefold())
    for name in taken:
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            if (folder := "/".join(folders[:depth])) in taken:
                return f"names {folder!r} as a file and as a folder. {_AGAIN}"
    return None


def _is_plain(name: object) -> bool:
    """Whether a name is a path below a folder, and not one that this program uses for other files."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or _DRIVE.match(name):
        return False
    parts = name.split("/")
    if any(not part or part.startswith(".") or part != part.strip() or len(part.encode()) > _LONGEST for part in parts):
        return False
    is_ours = parts[0].casefold().startswith((INDEX, CLASSES)) or parts[-1].casefold().endswith((".part", ".tmp"))
    return not is_ours and len(parts) < 10
