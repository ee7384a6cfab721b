"""Gzip files read at any offset: copies of the decompressor, taken on the way through, are where reading resumes.

Workers are forks of the process that has indexed a file, and share its copies; any other process makes its own.
"""

from __future__ import annotations

import bisect
import threading
import zlib
from dataclasses import dataclass, replace
from typing import Any

from common.addresses import without_credentials
from common.errors import DataError
from loaders.archives.place import plain_ranges
from loaders.transport.remote import is_remote

MOST_COPIES = 2000  # of a process, of 40 KB each: a decompressor's window and tables
SPACING = 1 << 19  # bytes of compressed data between two copies, at first; doubled whenever there are too many
_CHUNK = {False: 1 << 16, True: 1 << 20}  # compressed bytes that are read at once, from a disk and from a store
_MOST_OUT = 1 << 20  # bytes that they may become
_GZIP = 31  # zlib's word for the format with checksum


@dataclass
class _State:
    """A decompressor and where it is."""

    inflater: Any
    inside: int = 0  # offset of the next compressed byte that it is given
    outside: int = 0  # of the next byte that it returns


class GzipRanges:
    """A file compressed by gzip, in one or several members (pigz, bgzip), as the file inside."""

    def __init__(self, address: str) -> None:
        self._address, self._name, self._lock = address, without_credentials(address), threading.Lock()
        self._chunk = _CHUNK[is_remote(address)]
        self.copies: list[_State] = []  # in order
        self._state = _State(zlib.decompressobj(_GZIP))
        self._block = b""  # what was decompressed last, up to the state's `outside`

    @property
    def size(self) -> int:
        """Bytes of the file inside; has to decompress all of it."""
        with self._lock:
            while self._step():
                pass
            return self._state.outside

    def read(self, offset: int, size: int) -> bytes:
        """As Ranges.read; raises a DataError if the file is truncated or its checksum is not right."""
        parts, end = [], offset + size
        with self._lock:
            self._go_near(offset)
            while True:
                start = self._state.outside - len(self._block)
                if offset < self._state.outside:
                    parts.append(self._block[offset - start : end - start])
                    offset = min(end, self._state.outside)
                if offset >= end or not self._step():
                    return b"".join(parts)

    def _go_near(self, offset: int) -> None:
        """Make the state the one from which least has to be decompressed."""
        before = bisect.bisect_right(self.copies, offset, key=lambda copy: copy.outside)
        nearest = self.copies[before - 1] if before else None
        behind = offset < self._state.outside - len(self._block)
        if behind or (nearest and nearest.outside > self._state.outside):
            start = replace(nearest, inflater=nearest.inflater.copy()) if nearest else None
            self._state, self._block = start or _State(zlib.decompressobj(_GZIP)), b""

    def _step(self) -> bool:
        """Decompress the next block; False at the end."""
        state = self._state
        if state.inflater.eof and not self._next_member():
            return False
        data = state.inflater.unconsumed_tail
        if not data:
            data = plain_ranges(self._address).read(state.inside, self._chunk)
            state.inside += len(data)
        try:
            self._block = state.inflater.decompress(data, _MOST_OUT)
        except zlib.error as error:
            raise DataError(
                f"{self._name}: is damaged, before byte {state.inside:,} ({error}). Copy or download it again."
            ) from error
        if not data and not self._block and not state.inflater.eof:
            raise DataError(f"{self._name}: is truncated, at byte {state.inside:,}. Copy or download it again.")
        state.outside += len(self._block)
        if state.inside >= (self.copies[-1].inside if self.copies else 0) + _Copies.spacing:
            self.copies.append(replace(state, inflater=state.inflater.copy()))
            _Copies.add()
        return True

    def _next_member(self) -> bool:
        """Start with the next member; False if there is none, but zeros at most."""
        self._state.inside -= len(self._state.inflater.unused_data)
        more = plain_ranges(self._address).read(self._state.inside, self._chunk).strip(b"\0")
        self._state.inflater = zlib.decompressobj(_GZIP) if more else _Ended
        return bool(more)


class _Copies:
    """The copies of all files of this process."""

    spacing = SPACING
    count = 0

    @classmethod
    def add(cls) -> None:
        """Count one more; if there are too many, keep every other one."""
        cls.count += 1
        if cls.count > MOST_COPIES:
            cls.spacing *= 2
            for file in _files.values():
                file.copies = file.copies[1::2]
            cls.count = sum(len(file.copies) for file in _files.values())


class _Ended:
    """The decompressor at the end of a file."""

    eof, unused_data = True, b""


_files: dict[str, GzipRanges] = {}  # of this process, and of the one that it was forked from


def gzip_ranges(address: str) -> GzipRanges:
    """Open a file, once per process."""
    return _files.setdefault(address, GzipRanges(address))
