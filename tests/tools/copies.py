"""Shared by the tests of copies: making one, checking that it is complete, reading its files."""

from collections.abc import Sequence
from pathlib import Path

from common.addresses import without_credentials
from common.errors import DataError
from loaders.transport.preload import copy
from loaders.transport.preloading.records import Records


def preload(source: str, destination: str | Path, splits: Sequence[str] | None = None) -> Path:
    """Copy a data set and return the destination."""
    copy(source, destination, splits)
    return Path(destination)


def is_complete(destination: str | Path, source: str, splits: Sequence[str] | None = None) -> bool:
    """Return whether a folder is a complete, current copy, by its manifest and a sample of its files."""
    try:
        return Records(Path(destination), without_credentials(source)).is_current(splits)
    except DataError:
        return False


def tree(root: Path) -> dict[str, bytes]:
    """Return a folder's files, without the records of a copy."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".preload" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
