"""Sizes and hashes of files; a hash is written as `name:hexdigest`."""

import hashlib
from pathlib import Path
from typing import Any

import xxhash

from common.errors import DataError

HASHES = ("sha1", "xxh3_64", "xxh64", "xxh128", "sha256", "md5")  # the first of these that is recorded is checked
QUICK = "xxh3_64"  # for files without a recorded hash: as fast as memory


def size_of(path: Path) -> int:
    """Return a file's size in bytes, or -1 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def hash_of(path: Path, name: str = QUICK) -> str:
    """Return the hash of a file, of a kind in HASHES; raises a DataError if it cannot be read."""
    digest: Any = getattr(xxhash, name) if name.startswith("xxh") else name
    try:
        with open(path, "rb", buffering=0) as file:
            return f"{name}:{hashlib.file_digest(file, digest).hexdigest()}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error


def quick_hash(data: bytes) -> str:
    """Return the hash that `hash_of` gives for a file with these bytes."""
    return f"{QUICK}:{xxhash.xxh3_64(data).hexdigest()}"


def recorded_hash(info: dict[str, Any]) -> str:
    """Return the hash with which to verify a shard's file, given its entry in index.json; empty if it has none."""
    hashes = info.get("hashes") or {}
    name = next((name for name in HASHES if name in hashes), None)
    return f"{name}:{hashes[name]}" if name else ""
