"""The members of a tar archive, found by seeking from header to header, without reading what they hold."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from common.addresses import without_credentials
from common.errors import DataError
from loaders.archives.place import stream

_BLOCK = 512
_AGAIN = "Copy or download it again."


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int  # of its first byte in the archive's file
    size: int  # bytes


def members(address: str, start: int = 0, size: int | None = None, within: str = "") -> Iterator[Member]:
    """Yield the files of an archive, or of one inside it, in order.

    Args:
        address: the archive's path or address.
        start, size: the bytes that the inner archive takes in it.
        within: name of the inner archive, for messages.

    Raises:
        DataError: it is not a tar, is truncated, or holds a link, a device or a name that leads out of a folder.
    """
    place = without_credentials(address) + (f", {within}" if within else "")
    with stream(address, start, size) as file:
        end = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # which tarfile would keep: a million of them
                    if info.isdir():
                        continue
                    _check(info, place, end)
                    yield Member(info.name, start + info.offset_data, info.size)
                at = archive.offset
        except tarfile.TarError as error:
            raise DataError(f"{place}: is not a whole tar archive ({error}). {_AGAIN}") from error
        file.seek(at)
        if len(file.read(_BLOCK)) < _BLOCK:  # tarfile does not mind if the mark of the end is missing
            raise DataError(f"{place}: is truncated, after {end:,} bytes. {_AGAIN}")


def _check(info: tarfile.TarInfo, place: str, end: int) -> None:
    """Raise a DataError for a member that is not a plain file, or is not whole."""
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise DataError(f"{place}: its member {info.name} leads out of the archive. Do not use this archive.")
    if not info.isreg() or info.sparse is not None:
        kind = "a link" if info.issym() or info.islnk() else "not a plain file"
        raise DataError(f"{place}: its member {info.name} is {kind}. Write the archive again, with plain files only.")
    if info.offset_data + info.size > end:
        raise DataError(f"{place}: is truncated in {info.name}. {_AGAIN}")
