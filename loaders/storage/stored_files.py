"""Files of a data set in S3, such as tars, each downloaded whole to a cache folder on first use and read from there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import DataError
from common.store_faults import Damaged
from loaders.storage.shard_files import OpenFiles
from loaders.storage.sharded import check_mark, keep_mark
from loaders.transport.checksums import size_of
from loaders.transport.remote import download
from loaders.transport.shard_cache import ShardCache

MARK = "files.json"  # of the cache folder: the files that it is for
_LONGEST = 200  # bytes of a name in it


class StoredFile(NamedTuple):
    """An object in S3, in the version that the data set was indexed in."""

    address: str
    size: int  # bytes
    tag: str  # its ETag


class FileCache(ShardCache):
    """Cache of files as they are; arguments and errors are ShardCache's."""

    def __init__(self, remote: str, folder: Path, files: Sequence[StoredFile], limit: int | None) -> None:
        self._files = files
        super().__init__(remote, folder, [_entry(number, file) for number, file in enumerate(files)], limit)

    def place_of(self, shard: int) -> str:
        return self._files[shard].address

    def _download(self, shard: int, path: Path, part: Path) -> None:
        file = self._files[shard]

        def check(part: Path) -> None:
            if (size := size_of(part)) != file.size:
                raise Damaged(f"{size} bytes instead of {file.size}")

        download(file.address, path, check, file.size, part, tag=file.tag)


def _entry(number: int, file: StoredFile) -> dict[str, object]:
    """Return what the index.json of shards would say; names in the cache are numbered, so that they lead nowhere."""
    name = file.address.rpartition("/")[2].encode()[-_LONGEST:].decode(errors="ignore")
    return {"raw_data": {"basename": f"{number:05}-{name}", "bytes": file.size}, "zip_data": None}


class StoredFiles:
    """Reader at any offset of files in S3.

    Args:
        remote: address of the data set.
        folder: the cache, of this split alone.
        files: those that hold its images.
        limit: bytes that the cache may hold; None for all.

    Raises:
        DataError: the cache is another data set's or cannot be written, or the limit is smaller than a file.
    """

    def __init__(self, remote: str, folder: Path, files: Sequence[StoredFile], limit: int | None) -> None:
        data = json.dumps(files).encode()
        check_mark(folder / MARK, data, remote)
        keep_mark(folder / MARK, data, remote)
        self.cache = FileCache(remote, folder, files, limit)
        self._open = OpenFiles(self.cache, _File)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return bytes of a file; raises a DataError if it cannot be fetched or read."""
        try:
            data = os.pread(self._open[number].descriptor, size, offset)
        except OSError as error:
            raise DataError(f"{self.cache.path_of(number)}: cannot be read ({error.strerror}).") from error
        if len(data) != size:
            raise DataError(f"{self.cache.path_of(number)}: has been truncated. Delete it; it is downloaded again.")
        return data


class _File:
    """A descriptor, closed when its last reader is done."""

    def __init__(self, descriptor: int, _number: int) -> None:
        self.descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.descriptor)  # an argument, because `os` may be gone at the interpreter's exit
