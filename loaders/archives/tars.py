"""The members of a tar archive, found by seeking from header to header, without reading what they hold."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from common.addresses import without_credentials
from common.errors import DataError
from loaders.archives.place import SCANNED, stream

_BLOCK = 512
_CHUNK = 1 << 20
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
    info, at = None, 0
    with stream(address, start, size, SCANNED) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (following := archive.next()) is not None:
                    info, at = following, archive.offset
                    archive.members = []  # type: ignore[attr-defined]  # which tarfile would keep: a million of them
                    if info.isdir():
                        continue
                    _check(info, place)
                    yield Member(info.name, start + info.offset_data, info.size)
        except tarfile.TarError as error:
            file.seek(max(0, at - 1))
            if info is not None and not file.read(1):
                raise DataError(f"{place}: is truncated in {info.name}. {_AGAIN}") from error
            raise DataError(f"{place}: is not a whole tar archive ({error}). {_AGAIN}") from error
        file.seek(at)
        if len(file.read(_BLOCK)) < _BLOCK:  # tarfile does not mind if the mark of the end is missing
            after = f"after {info.name}" if info is not None else "at its start"
            raise DataError(f"{place}: is truncated, {after}. {_AGAIN}")
        while file.read(_CHUNK):  # gzip's checksum is at the end
            pass


def first_names(address: str, count: int) -> list[str]:
    """Return the names of an archive's first files, as many as can be read: to recognize what it holds."""
    names: list[str] = []
    with contextlib.suppress(DataError, tarfile.TarError, OSError), stream(address) as file:
        archive = tarfile.open(fileobj=file, mode="r:")
        while len(names) < count and (info := archive.next()) is not None:
            if not info.isdir():
                names.append(info.name)
    return names


def _check(info: tarfile.TarInfo, place: str) -> None:
    """Raise a DataError for a member that is not a plain file."""
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise DataError(f"{place}: its member {info.name} leads out of the archive. Do not use this archive.")
    if not info.isreg() or info.sparse is not None:
        kind = "a link" if info.issym() or info.islnk() else "not a plain file"
        raise DataError(f"{place}: its member {info.name} is {kind}. Write the archive again, with plain files only.")
