"""MDS shards in a folder of this machine, which all processes that read them share, even those of several runs.

Whoever holds the flock on a shard's lock file downloads, verifies and unpacks it, under another name until it is whole;
the kernel releases the lock however that process ends, and the others wait as long as the download makes progress.
Readers hold a shared flock on each shard that they have open, and only shards that nobody has open are evicted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.addresses import without_credentials
from common.errors import DataError
from common.store_faults import Damaged
from common.whole_files import temporary_name
from loaders.storage.mds_writer import stored_file, unpack
from loaders.storage.shard_index import INDEX, files_of
from loaders.transport.remote import download, join, unwritable

STALLED = 8.0  # seconds without a new byte, after which another process's download is not waited for
_TICK = 0.01  # seconds
_PART, _LOCK = ".part", ".lock.part"  # endings that no shard's name has
_LOCKLESS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # what flock raises where there are no locks


class ShardCache:
    """The shards of one split.

    Args:
        remote: the store's or another folder that holds them; None for shards that are read in place.
        folder: where they are cached.
        shards: their entries in index.json.
        limit: bytes of shards that the folder may hold, beside those that are being read; None: no limit.

    Raises:
        DataError: a shard that is read in place is missing or truncated, or the limit cannot be kept.
    """

    def __init__(
        self, remote: str | None, folder: Path, shards: Sequence[dict[str, Any]], limit: int | None = None
    ) -> None:
        self.remote, self.folder, self.shards, self.limit = remote, folder, shards, limit
        self.largest = max(entry["raw_data"]["bytes"] for entry in shards)
        self._writing: set[Path] = set()
        if remote is None:  # cheaper now than in the middle of an epoch
            for shard in range(len(shards)):
                self._check_in_place(shard)
            return
        if limit is not None:
            self._check_limit(limit)
        _remove_unfinished(folder, self._writing, os.getpid())
        weakref.finalize(self, _remove_unfinished, folder, self._writing, os.getpid())

    def path_of(self, shard: int) -> Path:
        """The file that a shard is read from."""
        return self.folder / self.shards[shard]["raw_data"]["basename"]

    def place_of(self, shard: int) -> str:
        """Where a shard is stored, for messages."""
        return join(without_credentials(self.remote or str(self.folder)), stored_file(self.shards[shard])["basename"])

    def open(self, shard: int) -> int:
        """Return a descriptor of a whole shard, fetching it first if needed; an open shard is not evicted.

        Raises:
            DataError: it cannot be had; the sentence names it.
        """
        while True:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path_of(shard), os.O_RDONLY | os.O_CLOEXEC)
                with contextlib.suppress(OSError):  # no locks here, or not our file
                    if self.remote is not None:
                        fcntl.flock(descriptor, fcntl.LOCK_SH)
                    if self.limit is not None:
                        os.utime(descriptor)  # used last, for whichever process evicts
                if os.fstat(descriptor).st_size == self.shards[shard]["raw_data"]["bytes"]:
                    return descriptor
                os.close(descriptor)
            self.fetch(shard)

    def fetch(self, shard: int, wait: bool = True) -> None:
        """Have a shard in the folder: downloaded, verified and unpacked.

        Args:
            shard: which one.
            wait: for another process or thread that is fetching it.

        Raises:
            DataError: it cannot be had; the sentence names it.
        """
        if self._is_whole(shard):
            return
        if self.remote is None:
            self._check_in_place(shard)
        path = self.path_of(shard)
        try:
            with self._alone(path, wait) as part:
                if part is not None and not self._is_whole(shard):
                    self._make_room()
                    self._download(shard, path, part)
        except OSError as error:
            raise unwritable(error, path.parent, self.place_of(shard)) from error

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard is there: what has its own name has been verified, unless another program has cut it."""
        return _size(self.path_of(shard)) == self.shards[shard]["raw_data"]["bytes"]

    def _download(self, shard: int, path: Path, part: Path) -> None:
        """Fetch a shard as it is stored, or unpack the compressed one that is there, and give it its name."""
        entry = self.shards[shard]
        stored = stored_file(entry)

        def finish(part: Path) -> None:
            try:
                raw = unpack(entry, part.read_bytes())
            except ValueError as error:
                raise Damaged(str(error)) from error
            if entry["zip_data"]:
                part.write_bytes(raw)

        kept = self.folder / stored["basename"]
        if kept != path and kept.is_file():
            try:
                return download(str(kept), path, finish, stored["bytes"], part)
            except DataError:
                if self.remote is None:
                    raise
            finally:
                if self.remote is not None:
                    kept.unlink(missing_ok=True)
        return download(join(self.remote or "", stored["basename"]), path, finish, stored["bytes"], part)

    @contextlib.contextmanager
    def _alone(self, path: Path, wait: bool = True) -> Iterator[Path | None]:
        """Hold a file's lock; yields the name to write under, or None if another holds it and is not waited for.

        Without locks, or if the other makes no progress, the name is one of this caller's own: the file may then be
        written twice, but never mixed.
        """
        lock, part, descriptor = path.with_name(path.name + _LOCK), path.with_name(path.name + _PART), None
        path.parent.mkdir(parents=True, exist_ok=True)
        furthest, since = -1, time.monotonic()
        while descriptor is None:
            try:
                descriptor = _locked(lock)
            except BlockingIOError:
                if not wait:
                    yield None
                    return
                if (size := _size(part)) > furthest:
                    furthest, since = size, time.monotonic()
                elif time.monotonic() > since + STALLED:
                    part = temporary_name(path).with_suffix(_PART)
                    break
                time.sleep(_TICK)
            except OSError as error:
                if error.errno not in _LOCKLESS:
                    raise
                lock.unlink(missing_ok=True)
                part = temporary_name(path).with_suffix(_PART)
                break
        ours = {part} if descriptor is None else {part, lock}
        self._writing.update(ours)
        try:
            yield part
        finally:
            if descriptor is not None:
                lock.unlink(missing_ok=True)
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile has the descriptor, too
                os.close(descriptor)
            self._writing.difference_update(ours)

    def _make_room(self) -> None:
        """Evict the shards used longest ago until those that are there and those being fetched fit into the limit."""
        if self.limit is None:
            return
        with self._alone(self.folder / INDEX):
            used, there = 0, []
            for info in (info for entry in self.shards for info in files_of(entry)):
                path = self.folder / info["basename"]
                try:
                    found = path.stat()
                    used += found.st_size
                    there.append((found.st_mtime_ns, found.st_size, path))
                except FileNotFoundError:
                    used += info["bytes"] if path.with_name(path.name + _LOCK).exists() else 0
            for _, size, path in sorted(there):
                if used <= self.limit:
                    break
                used -= size if _evicted(path) else 0

    def _check_limit(self, limit: int) -> None:
        """Refuse a limit that a single shard exceeds, or that cannot be kept because the folder has no locks."""
        if limit < self.largest:
            raise DataError(
                f"{join(without_credentials(self.remote or ''), INDEX)}: cache_limit={limit} bytes given, but the "
                f"largest shard has {self.largest}. Say cache_limit={self.largest} or more, or cache_limit=null."
            )
        try:
            with self._alone(self.folder / INDEX) as part:
                if part is not None and part.name != INDEX + _PART:
                    raise DataError(
                        f"{self.folder}: has no file locks, which tell the shards being read from those that "
                        "cache_limit may evict. Say local=/some/folder on a local disk, or cache_limit=null."
                    )
        except OSError as error:
            raise unwritable(error, self.folder, self.remote or "") from error

    def _check_in_place(self, shard: int) -> None:
        """Refuse a shard that is missing or truncated."""
        paths = {self.folder / info["basename"]: info["bytes"] for info in files_of(self.shards[shard])}
        sizes = {path: size for path in paths if (size := _size(path)) >= 0}
        if not sizes:
            raise DataError(
                f"{self.folder / stored_file(self.shards[shard])['basename']}: is missing, though index.json lists it. "
                "Copy the whole folder again, or wait for the run that downloads to it."
            )
        for path, size in sizes.items():
            if size != paths[path]:
                raise DataError(f"{path}: is damaged ({size} bytes instead of {paths[path]}). Copy it again.")


def _size(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _locked(lock: Path) -> int:
    """Return a descriptor that holds a lock file, which is made if it does not exist.

    Raises:
        BlockingIOError: another process or thread holds it.
        OSError: it cannot be made, or cannot be locked.
    """
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # whoever held it has removed it meanwhile
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _evicted(path: Path) -> bool:
    """Remove a shard that nobody has open; whether that was done."""
    try:
        with path.open("r+b") as file:  # NFS locks exclusively only what may be written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True


def _remove_unfinished(folder: Path, ours: set[Path], process: int) -> None:
    """Remove what ended processes were writing, and what threads of this one are still writing when it exits."""
    if os.getpid() != process:
        return  # a worker's copy: its parent goes on
    for path in list(ours):
        with contextlib.suppress(OSError):
            path.unlink()
    for lock in folder.rglob(f"*{_LOCK}"):
        with contextlib.suppress(OSError):  # another process holds it, or it cannot be written
            descriptor = _locked(lock)
            lock.with_name(lock.name.removesuffix(_LOCK) + _PART).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)
