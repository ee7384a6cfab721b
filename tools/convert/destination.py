"""Where converted data go: a folder of a disk, or of a bucket in S3."""

from __future__ import annotations

import shlex
import shutil

from common.addresses import is_s3
from common.errors import DataError
from common.folders import Folder, LocalFolder, existing, open_folder
from loaders.storage.unfinished import WORK
from loaders.transport.remote import is_remote


def open_destination(path: str) -> Folder:
    """Return the folder at a path or an s3:// address.

    Raises:
        DataError: it is neither.
    """
    if is_remote(path) and not is_s3(path):
        raise DataError(f"{path}: shards are written to a local folder or to s3://bucket/folder, and nowhere else.")
    return open_folder(path, WORK)


def removal(destination: Folder, *names: str) -> str:
    """Return the command that removes folders of the destination."""
    paths = [f"{destination}/{name}" for name in names]
    if isinstance(destination, LocalFolder):
        return shlex.join(["rm", "-r", *paths])
    return " && ".join(shlex.join(["aws", "s3", "rm", "--recursive", path]) for path in paths)


def check_room(destination: Folder, wanted: int) -> None:
    """Compare a disk's free space with what is to be written; buckets have no end.

    Args:
        destination: where to.
        wanted: bytes.

    Raises:
        DataError: it is too little.
    """
    if not isinstance(destination, LocalFolder):
        return
    free = shutil.disk_usage(existing(destination.path)).free
    if wanted > free:
        raise DataError(
            f"{destination}: about {wanted / 1e6:,.1f} MB are to be written, but {free / 1e6:,.1f} MB are free. "
            "Free some space, name another disk, or make the images smaller (--max-size 500)."
        )
