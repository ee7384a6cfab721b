"""What is on record of a copy: the manifest of a complete one, and the journal of one that is not."""

import json
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.addresses import without_credentials
from common.errors import DataError
from common.store_faults import StoreOutOfReach
from common.whole_files import whole_file
from loaders.transport.checksums import hash_of
from loaders.transport.preloading.source_files import INDEX, OWN_FOLDER, identity, is_wanted
from loaders.transport.remote import download, is_remote, join

SPOT_CHECK = 1000  # files of a complete copy that are looked at before it is used again


class Entry(NamedTuple):
    """What is known of one copied file: bytes, hash (`sha1:2fd4...`), and the version that was copied."""

    size: int
    hash: str
    version: str


class Records:
    """The files that say how far a copy is; they lie in a folder of their own below it.

    `manifest.json` is written last and atomically: only with it is a copy complete. Until then `journal.jsonl` gets a
    line for each finished file. `older.json` is the manifest of a copy that is being brought up to date.

    Args:
        destination: the copy's folder.
        source: what it is a copy of.
    """

    def __init__(self, destination: Path, source: str) -> None:
        self.destination, self.source, self.identity = destination, source, identity(source)
        self.folder = destination / OWN_FOLDER
        self._journal = self.folder / "journal.jsonl"
        self._manifest, self._older = self.folder / "manifest.json", self.folder / "older.json"
        self.source_reached = True
        self._lock = threading.Lock()
        record = _load(self._manifest)
        self.manifest = record if record and record["source"] == self.identity else None

    def files(self, splits: Sequence[str] | None) -> dict[str, list[Any]]:
        """The manifest's files of these splits, by name: [bytes, hash, version].

        Not as Entry: a million of those take a second to make.
        """
        files = self.manifest["files"] if self.manifest else {}
        return files if splits is None else {name: files[name] for name in files if is_wanted(name, splits)}

    def covers(self, splits: Sequence[str] | None) -> bool:
        """Whether the manifest promises these splits (None: everything)."""
        if self.manifest is None:
            return False
        promised = self.manifest["splits"]
        return promised is None or (splits is not None and set(splits) <= set(promised))

    def is_current(self, splits: Sequence[str] | None) -> bool:
        """Whether the copy is complete, some of its files are as the manifest says, and the source has not changed.

        Of a source that cannot be reached (`source_reached`), the copy counts as current.

        Raises:
            DataError: the source can be read, but lacks an index.json that was copied.
        """
        if not self.covers(splits):
            return False
        files = self.files(splits)
        spots = list(files)[:: len(files) // SPOT_CHECK + 1]
        if any(size_of(self.destination / name) != files[name][0] for name in spots):
            return False
        if not is_remote(self.source):
            self.source_reached = os.path.isdir(self.source)
            if not self.source_reached:
                return True
            if any(_version(Path(self.source, name)) != files[name][2] for name in spots):
                return False
            times = self.manifest.get("folders", {}) if self.manifest else {}
            if any(
                _version(Path(self.source, name)) != times[name]
                for name in times
                if splits is None or name.split("/")[0] in splits
            ):
                return False  # a folder's time changes with what is put into it or taken away
        indexes = [name for name in files if name.rpartition("/")[2] == INDEX]
        try:
            return all(self._index_hash(name) == files[name][1] for name in indexes)
        except StoreOutOfReach:
            self.source_reached = False
            return True

    def _index_hash(self, name: str) -> str:
        """The present hash of an index.json at the source."""
        place = join(self.source, name)
        if not is_remote(self.source):
            return hash_of(place)
        copy = self.folder / f"index.{os.getpid()}.json"
        try:
            download(place, copy)
            return hash_of(copy)
        except DataError as error:
            raise type(error)(without_credentials(str(error))) from error
        finally:
            copy.unlink(missing_ok=True)

    def begin(self, splits: Sequence[str] | None) -> dict[str, Entry]:
        """Withdraw a manifest that promises what is about to be copied, and open the journal.

        Returns:
            What is known of the files that earlier copies left, by name.

        Raises:
            DataError: they are another source's.
        """
        self._times = _folder_times(self.source, splits)
        if self.covers(splits):
            self._manifest.replace(self._older)
            self.manifest = None
        known: dict[str, Entry] = {}
        for path in (self._older, self._manifest):
            if record := _load(path):
                self._check_source(record)
                known |= {name: Entry(*entry) for name, entry in record["files"].items()}
        journal = list(_lines(self._journal))
        nothing_there = {entry.name for entry in os.scandir(self.destination)} <= {OWN_FOLDER}
        if nothing_there and not any("name" in line for line in journal):
            self._journal.unlink(missing_ok=True)  # of a source that nothing came from, such as a mistyped one
            journal = []
        for line in journal:
            if "source" in line:
                self._check_source(line)
            else:
                known[line["name"]] = Entry(*line["entry"])
        if not self._journal.is_file():
            write_json(self._journal, {"source": self.identity})
        self._append = self._journal.open("a")
        self._append.write("\n")  # the line before may have been cut short
        return known

    def _check_source(self, record: dict[str, Any]) -> None:
        if record["source"] != self.identity:
            raise DataError(
                f"{self.destination}: holds a copy of {record['source']}, not of {self.identity}. "
                f"Name another folder, or type: rm -r {self.destination}"
            )

    def note(self, name: str, entry: Entry) -> None:
        """Remember a finished file."""
        line = json.dumps({"name": name, "entry": entry}) + "\n"
        with self._lock:
            self._append.write(line)
            self._append.flush()

    def close(self) -> None:
        """Close the journal."""
        self._append.close()

    def finish(self, splits: Sequence[str] | None, files: dict[str, Entry]) -> None:
        """Everything is there: write the manifest.

        Args:
            splits: what was copied; a manifest that is there already gets it in addition.
            files: all files of the copy.
        """
        promised: list[str] | None = None if splits is None else sorted(splits)
        times = (self.manifest or {}).get("folders", {}) | self._times
        if promised is not None and self.manifest is not None:
            promised = sorted({*promised, *self.manifest["splits"]})
        os.sync()  # or a power failure could leave a manifest without its files
        self.manifest = {"source": self.identity, "splits": promised, "files": files, "folders": times}
        write_json(self._manifest, self.manifest)
        self._older.unlink(missing_ok=True)
        self._journal.unlink()


def write_json(path: Path, content: object) -> None:
    """Write a file whole or not at all, and durably."""
    with whole_file(path, durable=True) as temporary, temporary.open("w") as file:
        json.dump(content, file)


def _load(path: Path) -> dict[str, Any] | None:
    """A manifest, or None where there is none that can be read."""
    try:
        record = json.loads(path.read_text())
        return record if {"source", "splits", "files"} <= set(record) else None
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """A journal's lines; those that a killed process left unfinished are skipped."""
    if not path.is_file():
        return
    with path.open() as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def size_of(path: Path) -> int:
    """A file's bytes, or -1 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _folder_times(source: str, splits: Sequence[str] | None) -> dict[str, str]:
    """When something was last added to or removed from the split and class folders of a folder, by name."""
    if is_remote(source) or not os.path.isdir(source):
        return {}
    splits_there = [entry.name for entry in os.scandir(source) if entry.is_dir()]
    wanted = [name for name in splits_there if splits is None or name in splits]
    classes = [f"{name}/{entry.name}" for name in wanted for entry in os.scandir(Path(source, name)) if entry.is_dir()]
    return {name: _version(Path(source, name)) for name in [*wanted, *classes]}


def _version(path: Path) -> str:
    """A folder's file's version as `list_files` gives it, or empty where there is no file."""
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:
        return ""
