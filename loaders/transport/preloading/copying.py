"""Copying the files of a data set in threads: room is checked first, and each file appears whole or not at all."""

import errno
import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.addresses import without_credentials
from common.errors import DataError
from common.sizes import amount
from common.store_faults import Damaged
from common.terminal import ByteMeter, console
from common.whole_files import temporary_name
from loaders.transport.checksums import QUICK, hash_of, size_of
from loaders.transport.preloading.records import Records
from loaders.transport.preloading.source_files import SourceFile, below, is_wanted, leads_out, list_files
from loaders.transport.remote import download, is_remote, join

THREADS = 16  # a store or NFS takes milliseconds to answer: many files at a time keep the link busy
_TICK = 0.05  # seconds between two updates of the progress bar
_PATIENCE = 5.0  # seconds for the other threads to finish their files after a fault
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Copied:
    """Files and bytes of a copy, those copied by this call, and the seconds that took."""

    files: int
    bytes: int
    copied_files: int = 0
    copied_bytes: int = 0
    seconds: float = 0.0


class Copier:
    """Complete the copy of some splits (None: everything); the caller holds the copy's lock."""

    def __init__(self, records: Records, splits: Sequence[str] | None, shown: bool) -> None:
        self.records, self.splits, self.shown = records, splits, shown
        self.source, self.destination = records.source, records.destination
        self._parts = records.folder / "parts"
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._bytes = self._files = 0  # in place
        self._copied: list[int] = []  # bytes of each file that this call copied

    def run(self) -> Copied:
        """Copy the files that are missing, damaged or out of date, and remove those that the source no longer has."""
        with _explained(self.destination):
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir()
            self.records.begin(self.splits)
            try:
                files = list_files(self.source, self.splits)
                self._reject_links([*(file.name for file in files), *self.records.files])
                self._remove_surplus({file.name for file in files})
                self._check_room([file for file in files if not self._expected_hash(file)])
                began = time.monotonic()
                self._bring_all(files)
                seconds = time.monotonic() - began
            finally:
                self.records.close()
                shutil.rmtree(self._parts, ignore_errors=True)
            self.records.finish(self.splits)
        return Copied(len(files), self._bytes, len(self._copied), sum(self._copied), seconds)

    def _reject_links(self, names: list[str]) -> None:
        """Raise a DataError if a file's folder is outside its split, where nothing may be written or removed.

        A split's folder itself may be a link.
        """
        for inner in {os.path.dirname(below(name, str(self.destination))) for name in names}:
            split, _, deeper = inner.partition("/")
            if deeper and leads_out(self.destination / split, f"{deeper}/file"):
                raise DataError(
                    f"{self.destination / inner}: links to a folder outside {self.destination / split}; a data set is "
                    "copied into one folder. Remove the link, or name another folder."
                )

    def _remove_surplus(self, wanted: set[str]) -> None:
        """Remove files that the source no longer has: in a folder of images they would be read as data."""
        for name in self.records.files.keys() - wanted:
            if is_wanted(name, self.splits):
                (self.destination / name).unlink(missing_ok=True)
                del self.records.files[name]

    def _expected_hash(self, file: SourceFile) -> str:
        """Return the hash with which the existing copy of a file is kept, or an empty string if it must be copied."""
        if size_of(self.destination / file.name) != file.size:
            return ""
        _, copied, version = self.records.files.get(file.name, (0, "", None))
        return file.recorded or (copied if version == file.version else "")

    def _check_room(self, missing: list[SourceFile]) -> None:
        """Raise a DataError if the missing files need more blocks or inodes than are free."""
        status = os.statvfs(self.destination)
        replaced = sum(max(0, size_of(self.destination / file.name)) for file in missing)
        free = status.f_bavail * status.f_frsize + replaced
        unpacked = sum(file.unpacked for file in missing)
        needed = sum(-(-file.size // status.f_frsize) * status.f_frsize for file in missing) + unpacked
        if needed > free:
            paths = shlex.join([without_credentials(self.source), str(self.destination)])
            packed = f", {amount(unpacked)} of them to unpack compressed shards" if unpacked else ""
            raise DataError(
                f"{self.destination}: {amount(needed)} ({needed} bytes) are needed{packed}, but {amount(free)} "
                f"({free} bytes) are free. Free {amount(needed - free)} there, name a folder on a larger disk, or copy "
                f"one split alone: python -m tools.preload {paths} --split train"
            )
        if status.f_files and len(missing) > status.f_favail:
            raise DataError(
                f"{self.destination}: {len(missing)} files are to be copied, but its file system has room for "
                f"{status.f_favail} more (df -i). Name another disk, or convert the images to shards."
            )

    def _bring_all(self, files: list[SourceFile]) -> None:
        """Bring every file, many at a time; the first fault stops the other threads."""
        faults: list[BaseException] = []
        pending = iter(files)

        def work() -> None:
            try:
                for file in pending:  # shared: a list's iterator gives each file to one thread
                    if self._stop.is_set():
                        return
                    self._bring(file)
            except BaseException as error:
                faults.append(error)
                self._stop.set()

        # Daemons, because a download that never ends must not keep a program from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(files)))]
        try:
            total = sum(file.size for file in files)
            with ByteMeter(console(), f"copying to {self.destination}", total, self.shown) as meter:
                for thread in threads:
                    thread.start()
                while any(thread.is_alive() for thread in threads) and not self._stop.is_set():
                    threads[0].join(_TICK)
                    meter.files = self._files
                    meter(self._bytes + sum(max(0, size_of(part)) for part in self._parts.glob("*.tmp")))
        finally:
            self._stop.set()
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if faults:
            raise faults[0]

    def _bring(self, file: SourceFile) -> None:
        """Keep a file whose copy is whole, or copy it; then record it."""
        target = self.destination / file.name
        file_hash = self._expected_hash(file)
        if not file_hash or hash_of(target, file_hash.partition(":")[0]) != file_hash:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # there may be no room for both
            file_hash = self._fetch(file, target)
            if not is_remote(self.source):  # seek tables are of files with these times
                os.utime(target, ns=(int(file.version), int(file.version)))
            self._copied.append(file.size)
        entry = [file.size, file_hash, file.version]
        if self.records.files.get(file.name) != entry:
            self.records.note(file.name, entry)
        with self._lock:
            self._bytes += file.size
            self._files += 1

    def _fetch(self, file: SourceFile, target: Path) -> str:
        """Copy a file, verify it and return its hash; raises a DataError if it is unreadable, damaged or changed."""
        source, file_hash = join(self.source, file.name), ""

        def check(path: Path) -> None:
            nonlocal file_hash
            shown, kind = without_credentials(source), file.recorded.partition(":")[0]
            if (size := size_of(path)) != file.size:
                raise DataError(f"{shown}: changed from {file.size} to {size} bytes. Start again when it is complete.")
            file_hash = hash_of(path, kind or QUICK)
            if file.recorded not in ("", file_hash):
                raise Damaged(f"its {kind} is not the recorded one")
            if self._stop.is_set():  # run() may have ended, and another process may hold the copy's lock
                raise DataError(f"{shown}: was not copied, because of an earlier fault.")

        try:
            download(source, target, check, part=temporary_name(self._parts / "file"))
        except DataError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                raise error.__cause__ from error
            raise
        return file_hash


@contextmanager
def _explained(destination: Path) -> Iterator[None]:
    """Turn a fault of the destination's disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = amount(shutil.disk_usage(destination).free)
            advice = f"its disk is full ({free} free). Free some space and start again: finished files are kept"
        else:
            advice = f"cannot be written ({error.strerror}: {error.filename}). Name another folder"
        raise DataError(f"{destination}: {advice}.") from error
