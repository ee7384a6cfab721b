"""Hashes of files, written as `name:hexdigest`, and the pieces that files are read in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from common.errors import DataError

HASHES = ("sha1", "xxh3_64", "xxh64", "xxh128", "sha256", "md5")  # which one is checked, of those that were recorded
QUICK = "xxh3_64"  # of files for which no hash is recorded: as fast as memory
_CHUNK = 1 << 20  # bytes


def new_hash(name: str) -> Any:
    """An empty hash that has `update` and `hexdigest`: one of xxhash's, or of hashlib's."""
    return getattr(xxhash, name)() if name.startswith("xxh") else hashlib.new(name)


def chunks(path: str | Path) -> Iterator[bytes]:
    """A file's bytes, piece by piece.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                yield data
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error


def hash_of(path: str | Path, name: str = QUICK) -> str:
    """A file's hash.

    Args:
        path: the file.
        name: the hash to take, as in an index.json of shards: sha1, xxh64, ...

    Raises:
        DataError: it cannot be read.
    """
    found = new_hash(name)
    for data in chunks(path):
        found.update(data)
    return f"{name}:{found.hexdigest()}"


def quick_hash(data: bytes) -> str:
    """The hash of some bytes, as `hash_of` gives it for a file."""
    return f"{QUICK}:{xxhash.xxh3_64(data).hexdigest()}"


def recorded_hash(info: dict[str, Any]) -> str:
    """The hash to check a shard's file by, of those that its index records; empty where there is none.

    Args:
        info: the file's entry in index.json: basename, bytes, hashes.
    """
    hashes = info.get("hashes") or {}
    name = next((name for name in HASHES if name in hashes), None)
    return f"{name}:{hashes[name]}" if name else ""
