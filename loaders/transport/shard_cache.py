"""MDS shards in a folder of this machine, shared by all processes that read them, even those of several runs.

The process that holds the flock on a shard's lock file downloads, verifies and unpacks the shard under a temporary
name. The others wait while the download makes progress; the kernel releases the lock when its holder ends. Readers hold
a shared flock on each shard that they have open, and only shards that no process has open are evicted.
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
from loaders.transport.checksums import size_of
from loaders.transport.remote import download, join, unwritable

STALLED = 8.0  # seconds without a new byte after which waiting for another process's download ends
_TICK = 0.01  # seconds
_PART, _LOCK = ".part", ".lock.part"  # suffixes that no shard's name has
_LOCKLESS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # from flock where there are no locks


class ShardCache:
    """Cache of the shards of one split.

    Args:
        remote: address or folder to download from; None for shards that are read in place.
        folder: the cache, or the folder of the shards that are read in place.
        shards: entries of index.json.
        limit: bytes of shards that the folder may hold, not counting those being read; None for no limit.

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
        """Path of the file that a shard is read from."""
        return self.folder / self.shards[shard]["raw_data"]["basename"]

    def place_of(self, shard: int) -> str:
        """Address of a shard's stored file, for messages."""
        return join(without_credentials(self.remote or str(self.folder)), stored_file(self.shards[shard])["basename"])

    def open(self, shard: int) -> int:
        """Return a descriptor of a complete shard, which `fetch` gets first if needed; an open shard is not evicted."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path_of(shard), os.O_RDONLY | os.O_CLOEXEC)
                with contextlib.suppress(OSError):  # no locks here, or another user's file
                    if self.remote is not None:
                        fcntl.flock(descriptor, fcntl.LOCK_SH)
                    if self.limit is not None:
                        os.utime(descriptor)  # so that the process that evicts sees the last use
                if os.fstat(descriptor).st_size == self.shards[shard]["raw_data"]["bytes"]:
                    return descriptor
                os.close(descriptor)
            self.fetch(shard)

    def fetch(self, shard: int, wait: bool = True) -> None:
        """Download, verify and unpack a shard, unless the folder has it.

        If another process or thread is fetching the shard, wait for it, or return at once if not `wait`.

        Raises:
            DataError: the shard cannot be fetched; the message names it.
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
        """Whether a shard is complete; a file was verified when it got its final name, but may be truncated since."""
        return size_of(self.path_of(shard)) == self.shards[shard]["raw_data"]["bytes"]

    def _download(self, shard: int, path: Path, part: Path) -> None:
        """Download a shard, or take the compressed one in the folder; unpack it and give it its final name."""
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
        """Hold a file's lock and yield the temporary path to write to; None if another has it and `wait` is false.

        Without locks, or if the lock's holder makes no progress, the temporary path is unique: the file may then be
        written twice, but never by two processes at once.
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
                if (size := size_of(part)) > furthest:
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
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough if a child was forked meanwhile
                os.close(descriptor)
            self._writing.difference_update(ours)

    def _make_room(self) -> None:
        """Evict the least recently used shards until the others and those being fetched fit into the limit."""
        if self.limit is None:
            return
        with self._alone(self.folder / INDEX):
            used, cached = 0, []
            for info in (info for entry in self.shards for info in files_of(entry)):
                path = self.folder / info["basename"]
                try:
                    status = path.stat()
                    used += status.st_size
                    cached.append((status.st_mtime_ns, status.st_size, path))
                except FileNotFoundError:
                    used += info["bytes"] if path.with_name(path.name + _LOCK).exists() else 0
            for _, size, path in sorted(cached):
                if used <= self.limit:
                    break
                used -= size if _evicted(path) else 0

    def _check_limit(self, limit: int) -> None:
        """Reject a limit below the largest shard, or one that cannot be kept because the folder has no locks."""
        if limit < self.largest:
            raise DataError(
                f"{without_credentials(self.remote or '')}: cache_limit={limit} bytes, but the "
                f"largest shard has {self.largest}. Set cache_limit={self.largest} or more, or cache_limit=null."
            )
        try:
            with self._alone(self.folder / INDEX) as part:
                if part is not None and part.name != INDEX + _PART:
                    raise DataError(
                        f"{self.folder}: has no file locks, which keep cache_limit from evicting shards that are being "
                        "read. Set local=/some/folder on a local disk, or cache_limit=null."
                    )
        except OSError as error:
            raise unwritable(error, self.folder, self.remote or "") from error

    def _check_in_place(self, shard: int) -> None:
        """Reject a shard that is missing or truncated."""
        paths = {self.folder / info["basename"]: info["bytes"] for info in files_of(self.shards[shard])}
        sizes = {path: size for path in paths if (size := size_of(path)) >= 0}
        if not sizes:
            raise DataError(
                f"{self.folder / stored_file(self.shards[shard])['basename']}: is missing, though index.json lists it. "
                "Copy the whole folder again, or wait for the run that downloads to it."
            )
        for path, size in sizes.items():
            if size != paths[path]:
                raise DataError(f"{path}: is damaged ({size} bytes instead of {paths[path]}). Copy it again.")


def _locked(lock: Path) -> int:
    """Create a lock file if needed, lock it and return its descriptor; BlockingIOError if it is locked already."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its holder has removed it meanwhile
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _evicted(path: Path) -> bool:
    """Remove a shard unless a process has it open; return whether it was removed."""
    try:
        with path.open("r+b") as file:  # NFS grants an exclusive lock only on a writable file
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True


def _remove_unfinished(folder: Path, ours: set[Path], process: int) -> None:
    """Remove partial files of processes that ended, and those of this process's threads when it exits."""
    if os.getpid() != process:
        return  # in a forked worker: the files are its parent's
    for path in list(ours):
        with contextlib.suppress(OSError):
            path.unlink()
    for lock in folder.rglob(f"*{_LOCK}"):
        with contextlib.suppress(OSError):  # held by another process, or not writable
            descriptor = _locked(lock)
            lock.with_name(lock.name.removesuffix(_LOCK) + _PART).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)
