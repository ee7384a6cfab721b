"""What the tests of copies share: making one, whether it is complete, and what is in it."""

from collections.abc import Sequence
from pathlib import Path

from common.addresses import without_credentials
from common.errors import DataError
from loaders.transport.preload import copy
from loaders.transport.preloading.records import Records


def preload(source: str, destination: str | Path, splits: Sequence[str] | None = None) -> Path:
    """Copy; the destination."""
    copy(source, destination, splits)
    return Path(destination)


def is_complete(destination: str | Path, source: str, splits: Sequence[str] | None = None) -> bool:
    """Whether a folder is a complete and current copy: as its manifest says, some of its files looked at."""
    try:
        return Records(Path(destination), without_credentials(source)).is_current(splits)
    except DataError:
        return False


def tree(root: Path) -> dict[str, bytes]:
    """What a folder holds, the records of a copy left out."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".preload" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
