"""What is done with a part of a split: read, hash and decode its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from common.errors import DataError
from common.store_faults import StoreOutOfReach
from loaders.errors import unreadable
from loaders.images.decoding import Source, check, is_too_deep
from loaders.transport.remote import download, is_remote, join

Sample = tuple[str, int, Source | Path]
"""An image's name, its label, and what is stored, or where."""

EMPTY = "is an empty file. Copy it again, or delete it."


@dataclass(frozen=True)
class FolderJob:
    """Some images of one class.

    Args:
        start: the first one's place in the split.
        folder: the class' folder.
        names: the files in it.
        label: of the class.
    """

    start: int
    folder: Path
    names: list[str]
    label: int

    def samples(self) -> Iterator[Sample]:
        """The images."""
        for name in self.names:
            path = self.folder / name
            yield str(path), self.label, path

    def only(self, place: int) -> FolderJob:
        """The job of one of its images, by its place in the split."""
        return FolderJob(place, self.folder, [self.names[place - self.start]], self.label)


@dataclass(frozen=True)
class ShardJob:
    """One MDS shard.

    Args:
        start: its first image's place in the split.
        remote: the data set's folder, of a store or a disk.
        local: the cache folder for a store's shards.
        split: `train` or `val`.
        entry: the shard's entry in index.json.
    """

    start: int
    remote: str
    local: str
    split: str
    entry: dict[str, Any]

    def samples(self) -> Iterator[Sample]:
        """The images.

        Raises:
            DataError: the shard is missing or damaged.
        """
        from loaders.storage.columns import WrongValue  # seconds to import, needed only for shards
        from loaders.storage.mds_writer import count_samples, read_sample

        raw, name = self.unpacked(), self.place()
        if count_samples(raw) != self.entry["samples"]:
            counts = f"it holds {count_samples(raw)} images, but index.json says {self.entry['samples']}"
            raise DataError(f"{name}: {counts}. Convert the data set again.")
        for number in range(self.entry["samples"]):
            sample = f"{name}, sample {number}"
            try:
                _, image, label = read_sample(self.entry, raw, number)
            except WrongValue as error:
                raise DataError(f"{sample}: {error}") from error
            except Exception as error:  # bytes that no hash was recorded of may be anything
                raise DataError(f"{sample}: is damaged ({error}). Copy or upload the shard again.") from error
            yield sample, label, image

    @property
    def stored(self) -> dict[str, Any]:
        """The index's words of the file that is stored: basename, bytes, hashes."""
        return self.entry.get("zip_data") or self.entry["raw_data"]

    def place(self) -> str:
        """Where the shard is stored, for messages."""
        return join(self.remote, self.split, self.stored["basename"])

    def unpacked(self) -> bytes:
        """The shard's bytes, uncompressed, after checking the hashes of every file that it consists of.

        Raises:
            DataError: it is missing or damaged, even when a store's is fetched once more.
        """
        in_store = is_remote(self.remote)
        folder = Path(self.local if in_store else self.remote, self.split)
        for fresh in (False, True):
            try:
                return self._read(folder, download_again=fresh)
            except (ValueError, OSError) as error:
                if fresh or not in_store:
                    raise DataError(f"{self.place()}: is damaged ({error}). Copy or upload it again.") from error
        raise AssertionError("unreachable")

    def _read(self, folder: Path, download_again: bool) -> bytes:
        """One attempt; a ValueError means that a file is not what the index describes."""
        from loaders.storage.mds_writer import unpack

        entry = self.entry
        kinds = [entry] if not entry["zip_data"] else [entry, {**entry, "zip_data": None}]
        paths = [folder / (kind["zip_data"] or kind["raw_data"])["basename"] for kind in kinds]
        if download_again or not any(path.is_file() for path in paths):
            if not is_remote(self.remote):
                raise DataError(f"{paths[0]}: is missing, though index.json lists it. Copy it again.")
            download(self.place(), paths[0], size=self.stored["bytes"])
            paths = paths[:1]
        there = [(kind, path) for kind, path in zip(kinds, paths, strict=False) if path.is_file()]
        return [unpack(kind, path.read_bytes()) for kind, path in there][-1]


Job = FolderJob | ShardJob


@dataclass
class Looked:
    """What was found in a job's images, one item per image in all but `faults`.

    Args:
        digests: hashes of the stored bytes, 64 bits.
        bytes: lengths; 0 of what could not be read.
        labels: as stored.
        sizes: (width, height) in pixels; (0, 0) of what is no image.
        faults: a sentence each.
        deep: how many are grey with more than 8 bits.
    """

    digests: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    deep: int = 0


def look(job: Job, told: Callable[[int], None] = lambda _: None) -> Looked:
    """Look into all images of a job.

    Args:
        job: which images.
        told: is told of each that is done.

    Raises:
        StoreOutOfReach: no file of the store can be read.
    """
    found = Looked()
    try:
        for name, label, kept in job.samples():
            stored, size, fault, deep = _open(kept)
            if fault:
                found.faults.append(f"{name}: {fault}")
            found.deep += deep
            found.digests.append(xxhash.xxh3_64_intdigest(stored))
            found.bytes.append(len(stored))
            found.labels.append(label)
            found.sizes.append(size)
            told(1)
    except StoreOutOfReach:
        raise
    except DataError as error:
        found.faults.append(str(error))
    return found


def _open(kept: Source | Path) -> tuple[bytes, tuple[int, int], str, bool]:
    """An image's stored bytes, its width and height, what is wrong with it, if anything is, and if it is too deep."""
    stored = b""
    try:
        source = kept.read_bytes() if isinstance(kept, Path) else kept
        stored = source if isinstance(source, bytes) else source.tobytes()
        if not stored:
            return stored, (0, 0), EMPTY, False
        height, width = check(source)
        return stored, (width, height), "", is_too_deep(source)
    except Exception as error:  # each decoder has its own
        why = f"{unreadable(error)}. Replace or delete it."
        return stored, (0, 0), why, False
