"""Records of a copy: the manifest of its files, and the journal of the files finished since it was written."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.store_faults import StoreOutOfReach
from common.whole_files import whole_file
from loaders.transport.checksums import quick_hash, size_of
from loaders.transport.preloading.source_files import INDEX, OWN_FOLDER, identity, is_wanted
from loaders.transport.remote import is_remote, join, read

SPOT_CHECK = 1000  # files of a complete copy that are compared with their records before it is used again


class Records:
    """The files of the copy of `source` in `destination`, and which splits are complete.

    `manifest.json` is replaced atomically when a copy starts and when it is complete. In between, `journal.jsonl` gets
    a line for each finished file, so that an interrupted copy continues where it stopped.
    """

    def __init__(self, destination: Path, source: str) -> None:
        self.destination, self.source, self.identity = destination, source, identity(source)
        self.folder = destination / OWN_FOLDER
        self._manifest, self._journal = self.folder / "manifest.json", self.folder / "journal.jsonl"
        self.source_reached = True
        record = _manifest(self._manifest) or {"source": self.identity, "splits": [], "files": {}, "folders": {}}
        self._copied_from: str = record["source"]
        self._complete: list[str] | None = record["splits"]  # None: everything
        self._folder_times: dict[str, dict[str, int]] = record["folders"]
        # Lists of [bytes, hash (`sha1:2fd4...`), version], because a million named tuples take a second to make.
        self.files: dict[str, list[Any]] = record["files"] | _journal(self._journal)

    def files_of(self, splits: Sequence[str] | None) -> dict[str, list[Any]]:
        """Return the recorded files of these splits (None: all): name -> [bytes, hash, version]."""
        if splits is None:
            return self.files
        return {name: entry for name, entry in self.files.items() if is_wanted(name, splits)}

    def is_current(self, splits: Sequence[str] | None) -> bool:
        """Whether the splits are complete, a sample of their files is unharmed, and the source has not changed.

        If the source cannot be reached, the copy counts as current and `source_reached` becomes False.

        Raises:
            DataError: the source can be read but lacks an index.json that was copied.
        """
        if not self.is_complete(splits):
            return False
        files = self.files_of(splits)
        spots = list(files)[:: len(files) // SPOT_CHECK + 1]
        if any(size_of(self.destination / name) != files[name][0] for name in spots):
            return False
        if not is_remote(self.source):
            self.source_reached = os.path.isdir(self.source)
            if not self.source_reached:
                return True
            if any(_version(Path(self.source, name)) != files[name][2] for name in spots):
                return False
            times = _folder_times(self.source, splits)
            if any(self._folder_times.get(folder) != times[folder] for folder in times):
                return False
        indexes = [name for name in files if name.rpartition("/")[2] == INDEX]
        try:
            return all(quick_hash(read(join(self.source, name))) == files[name][1] for name in indexes)
        except StoreOutOfReach:
            self.source_reached = False
            return True

    def is_complete(self, splits: Sequence[str] | None) -> bool:
        """Whether the splits (None: everything) have been copied from this source."""
        is_whole = self._complete is None or (splits is not None and set(splits) <= set(self._complete))
        return is_whole and self._copied_from == self.identity

    def begin(self, splits: Sequence[str] | None) -> None:
        """Mark the splits as incomplete and open the journal; raises a DataError for a copy of another source."""
        if self.files and self._copied_from != self.identity:
            raise DataError(
                f"{self.destination}: holds a copy of {self._copied_from}, not of {self.identity}. "
                f"Name another folder, or type: rm -r {self.destination}"
            )
        # Read before the files are listed: a change in between is noticed by the next run.
        self._folder_times |= _folder_times(self.source, splits)
        self._complete = [] if splits is None else [name for name in self._complete or () if name not in splits]
        self._write_manifest()
        self._lines = self._journal.open("wb", buffering=0)

    def note(self, name: str, entry: list[Any]) -> None:
        """Record a finished file; threads may call this at the same time."""
        self.files[name] = entry
        self._lines.write(f"{json.dumps([name, entry])}\n".encode())

    def close(self) -> None:
        """Close the journal, which stays for the next call."""
        self._lines.close()

    def finish(self, splits: Sequence[str] | None) -> None:
        """Mark the splits as complete."""
        os.sync()  # or a power failure could leave a manifest without its files
        self._complete = None if splits is None else sorted({*splits, *(self._complete or ())})
        self._write_manifest()
        self._journal.unlink()

    def _write_manifest(self) -> None:
        record = {"source": self.identity, "splits": self._complete, "files": self.files}
        with whole_file(self._manifest, durable=True) as temporary, temporary.open("w") as file:
            json.dump(record | {"folders": self._folder_times}, file)


def _manifest(path: Path) -> dict[str, Any] | None:
    """Return a manifest, or None if it does not exist or is damaged."""
    try:
        record = json.loads(path.read_text())
        return record if {"source", "splits", "files", "folders"} <= set(record) else None
    except (OSError, ValueError):
        return None


def _journal(path: Path) -> dict[str, list[Any]]:
    """Return the files of a journal; a last line that was cut short by a kill is ignored."""
    files: dict[str, list[Any]] = {}
    with suppress(FileNotFoundError, ValueError), path.open() as lines:
        files.update(map(json.loads, lines))
    return files


def _folder_times(source: str, splits: Sequence[str] | None) -> dict[str, dict[str, int]]:
    """Return when an entry was last added to or removed from each split and class folder (ns), by split."""
    if is_remote(source):
        return {}
    try:
        tops = [top for top in os.scandir(source) if top.is_dir() and (splits is None or top.name in splits)]
        return {
            top.name: {folder.name: folder.stat().st_mtime_ns for folder in os.scandir(top) if folder.is_dir()}
            | {"": top.stat().st_mtime_ns}
            for top in tops
        }
    except OSError:
        return {}  # listing the source reports it


def _version(path: Path) -> str:
    """Return a file's version as `list_files` does, or an empty string if it does not exist."""
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:
        return ""
