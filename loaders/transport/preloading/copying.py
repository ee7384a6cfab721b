"""Copying a data set's files in threads: room first, then each file checked, and in its place whole or not at all."""

import errno
import itertools
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
from common.terminal import console
from loaders.transport.checksums import QUICK, chunks, hash_of, new_hash
from loaders.transport.preloading.progress import ByteMeter, amount
from loaders.transport.preloading.records import Entry, Records, size_of
from loaders.transport.preloading.source_files import SourceFile, below, is_wanted, leads_out, list_files
from loaders.transport.remote import download, is_remote, join

THREADS = 16  # a store or NFS answers in milliseconds: many files at a time keep the line full
_LARGE = 1 << 20  # bytes; from here on what is read back comes from the disk and not from memory
_TICK = 0.05
_PATIENCE = 5.0  # seconds for the other threads to end what they are at


@dataclass(frozen=True)
class Copied:
    """What a preload did: the files and bytes of the copy, how much of it was copied now, and in how many seconds."""

    files: int
    bytes: int
    copied_files: int = 0
    copied_bytes: int = 0
    seconds: float = 0.0


class _Stopped(Exception):
    """Another thread has met a fault."""


class Copier:
    """Makes a copy complete.

    Args:
        records: of the copy; nobody else may be writing them.
        splits: which splits; None for everything.
        shown: show how far it is.
    """

    def __init__(self, records: Records, splits: Sequence[str] | None, shown: bool) -> None:
        self.records, self.splits, self.shown = records, splits, shown
        self.source, self.destination = records.source, records.destination
        self._parts = records.folder / "parts"
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._done: dict[str, Entry] = {}
        self._bytes = 0  # there, or on their way
        self._copied: list[int] = []  # bytes of each file that was not there
        self._lock = threading.Lock()

    def run(self) -> Copied:
        """Copy what is not there yet.

        Raises:
            DataError: the source cannot be read or is damaged, or the destination has no room or cannot be written.
        """
        with _writing(self.destination):
            return self._run()

    def _run(self) -> Copied:
        """As `run`, with what the destination refuses raised as it comes."""
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir()
        self._known = self.records.begin(self.splits)
        try:
            files = list_files(self.source, self.splits, self._parts)
            self._refuse_links([*(file.name for file in files), *self._known])
            self._remove_surplus({file.name for file in files})
            self._check_room([file for file in files if not self._expected(file)])
            began = time.monotonic()
            self._bring_all(files)
        finally:
            self.records.close()
            shutil.rmtree(self._parts, ignore_errors=True)
        others = {name: entry for name, entry in self._known.items() if not is_wanted(name, self.splits)}
        self.records.finish(self.splits, others | dict(sorted(self._done.items())))
        total, seconds = sum(file.size for file in files), time.monotonic() - began
        return Copied(len(files), total, len(self._copied), sum(self._copied), seconds)

    def _refuse_links(self, names: list[str]) -> None:
        """Write and remove nothing outside of the copy, whatever links and manifest were there before.

        A split's folder may be a link: to a larger disk.

        Raises:
            DataError: a name of a file leads there.
        """
        for inner in {os.path.dirname(below(name, str(self.destination))) for name in names}:
            split, _, deeper = inner.partition("/")
            if deeper and leads_out(self.destination / split, f"{deeper}/file"):
                raise DataError(
                    f"{self.destination / inner}: lies outside of {self.destination / split}, by a link; a data set "
                    "is copied into its own folder alone. Remove the link, or name another folder."
                )

    def _remove_surplus(self, wanted: set[str]) -> None:
        """Remove what an earlier state of the source had: in a folder of images it would be read as data."""
        for name in self._known.keys() - wanted:
            if is_wanted(name, self.splits):
                (self.destination / name).unlink(missing_ok=True)
                del self._known[name]

    def _expected(self, file: SourceFile) -> str:
        """The hash by which a file that is there may stay; empty if it has to be copied."""
        if size_of(self.destination / file.name) != file.size:
            return ""
        entry = self._known.get(file.name)
        if file.recorded or entry is None:
            return file.recorded
        return entry.hash if entry.version == file.version else ""

    def _check_room(self, missing: list[SourceFile]) -> None:
        """Compare what is to be written with what is free, in blocks and in numbers of files.

        Raises:
            DataError: it will not fit.
        """
        status = os.statvfs(self.destination)
        replaced = sum(max(0, size_of(self.destination / file.name)) for file in missing)
        free = status.f_bavail * status.f_frsize + replaced
        needed = sum(-(-file.size // status.f_frsize) * status.f_frsize + file.unpacked for file in missing)
        if needed > free:
            unpacked = sum(file.unpacked for file in missing)
            what = f"{amount(needed)} ({needed} bytes) are needed"
            places = [without_credentials(self.source), str(self.destination)]
            what += f", {amount(unpacked)} of them to unpack compressed shards" if unpacked else ""
            raise DataError(
                f"{self.destination}: {what}, but {amount(free)} ({free} bytes) are free. Free {amount(needed - free)} "
                "there, name a folder on a larger disk, or copy one split alone: "
                f"python -m tools.preload {shlex.join(places)} --split train"
            )
        if status.f_files and len(missing) > status.f_favail:
            raise DataError(
                f"{self.destination}: {len(missing)} files are to be copied, but its file system has room for "
                f"{status.f_favail} more (df -i). Name another disk, or convert the images to shards."
            )

    def _bring_all(self, files: list[SourceFile]) -> None:
        """Bring every file, many at a time; the first fault stops the others."""
        faults: list[BaseException] = []
        left = iter(files)

        def work() -> None:
            while not self._stop.is_set():
                with self._lock:
                    file = next(left, None)
                if file is None:
                    return
                try:
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
                    meter(self._bytes)
        finally:
            self._stop.set()
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        if fault := next((error for error in faults if not isinstance(error, _Stopped)), None):
            raise fault

    def _bring(self, file: SourceFile) -> None:
        """Keep a file that is there and whole, or copy it; then note it."""
        target = self.destination / file.name
        expected = self._expected(file)
        if expected and hash_of(target, expected.partition(":")[0]) == expected:
            self._advance(file.size)
            self._note(file, Entry(file.size, expected, file.version))
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # there may be no room for both
        part = self._parts / f"{next(self._numbers)}.part"
        found = self._fetch(file, part)
        if self._stop.is_set():
            raise _Stopped
        part.replace(target)
        self._copied.append(file.size)
        self._note(file, Entry(file.size, found, file.version))

    def _fetch(self, file: SourceFile, part: Path) -> str:
        """Copy a file and read back what was written.

        Returns:
            The hash of both.

        Raises:
            DataError: it cannot be had, or is not what it should be.
        """
        name = file.recorded.partition(":")[0] or QUICK
        place = without_credentials(join(self.source, file.name))
        if is_remote(self.source):
            try:
                download(join(self.source, file.name), part)
            except DataError as error:
                raise type(error)(without_credentials(str(error))) from error
            self._advance(file.size)
            passed = ""  # the store's client compares what passes with the checksum that the store has
        else:
            passed = self._copy(place, part, name)
        _settle(part, file.size)
        size, written = size_of(part), hash_of(part, name)
        if size != file.size:
            raise DataError(f"{place}: was {file.size} bytes and is {size} now. Start again when nobody changes it.")
        if file.recorded and file.recorded != (passed or written):
            raise DataError(f"{place}: is damaged (its {name} is not the recorded one). Copy or upload it again.")
        if passed and passed != written:
            raise DataError(f"{self.destination}: {file.name} reads back differently. Replace the disk.")
        return written

    def _copy(self, place: str, part: Path, name: str) -> str:
        """Copy a file of a disk; the hash of what passed."""
        passing = new_hash(name)
        with part.open("wb") as out:
            for data in chunks(place):
                if self._stop.is_set():
                    raise _Stopped
                passing.update(data)
                out.write(data)
                self._advance(len(data))
        return f"{name}:{passing.hexdigest()}"

    def _note(self, file: SourceFile, entry: Entry) -> None:
        """A file is in its place."""
        self._done[file.name] = entry
        if self._known.get(file.name) != entry:
            self.records.note(file.name, entry)

    def _advance(self, count: int) -> None:
        """So many bytes more are there."""
        with self._lock:
            self._bytes += count


def _settle(part: Path, size: int) -> None:
    """Have a large file written to the disk and forgotten by the memory, so that reading it back means something."""
    if size < _LARGE:
        return
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(destination: Path) -> Iterator[None]:
    """Turn what a disk refuses into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = amount(shutil.disk_usage(destination).free)
            advice = f"its disk is full ({free} free). Free some space and start again: what is copied stays"
        else:
            advice = f"cannot be written ({error.strerror}: {error.filename}). Name another folder"
        raise DataError(f"{destination}: {advice}.") from error
