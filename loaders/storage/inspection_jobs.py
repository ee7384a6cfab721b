"""Jobs that check a part of a split: read, hash and decode its images."""

from __future__ import annotations

import functools
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from common.errors import DataError
from common.store_faults import StoreOutOfReach
from loaders.archives.catalog import Catalog
from loaders.errors import unreadable
from loaders.images import native
from loaders.images.decoding import Stored, check, is_too_deep
from loaders.images.native import Encoded
from loaders.images.odd_files import expected_oddity, oddity
from loaders.storage.columns import WrongValue
from loaders.storage.mds_writer import count_samples, read_sample, read_table, stored_file, unpack
from loaders.storage.seek_file import SeekFile, keys_of, open_tables, read_file
from loaders.transport.checksums import size_of
from loaders.transport.remote import download, is_remote, join

Sample = tuple[str, int, Callable[[], Stored]]
"""An image's name, its label, and what reads it; Encoded if it has a seek table, or should have one."""

EMPTY = "is an empty file. Copy it again, or delete it."


@dataclass(frozen=True)
class FolderJob:
    """Some images of one class."""

    start: int  # index of the first one in the split
    folder: Path
    names: list[str]
    label: int

    def samples(self) -> Iterator[Sample]:
        """Yield the images."""
        for name in self.names:
            yield str(self.folder / name), self.label, functools.partial(self._read, name)

    def _read(self, name: str) -> Stored:
        data, status = read_file(self.folder / name)
        if tables := _tables(self.folder.parent):
            (place,) = tables.places(keys_of([os.fsencode(f"{self.folder.name}/{name}")])).tolist()
            if tables.fits(place, status):
                return Encoded(data, tables.table(place))
        return data

    def lengths(self) -> list[int]:
        """Return the files' sizes in bytes; -1 for a missing one."""
        return [size_of(self.folder / name) for name in self.names]

    @property
    def renewal(self) -> str:
        """What makes the seek tables again."""
        tables = _tables(self.folder.parent)
        again = shlex.join(["python", "-m", "tools.seek", str(self.folder.parent.parent)])
        return f"Type: {shlex.join(['rm', str(tables.path)])} && {again}" if tables else ""

    def only(self, index: int) -> FolderJob:
        """Return a job for one of the images, given its index in the split."""
        return FolderJob(index, self.folder, [self.names[index - self.start]], self.label)


@dataclass(frozen=True)
class ShardJob:
    """One MDS shard."""

    start: int  # index of its first image in the split
    remote: str  # the data set's folder, in a store or on disk
    local: str  # the cache folder for a store's shards
    split: str
    entry: dict[str, Any]  # of index.json
    renewal = "Convert the data set again."

    def samples(self) -> Iterator[Sample]:
        """Yield the images; raises a DataError if the shard is missing or damaged."""
        raw, name = self.unpacked(), self.place()
        if count_samples(raw) != self.entry["samples"]:
            counts = f"it holds {count_samples(raw)} images, but index.json says {self.entry['samples']}"
            raise DataError(f"{name}: {counts}. Convert the data set again.")
        for number in range(self.entry["samples"]):
            sample = f"{name}, sample {number}"
            try:
                _, image, label = read_sample(self.entry, raw, number)
                table = read_table(self.entry, raw, number)
            except WrongValue as error:
                raise DataError(f"{sample}: {error}") from error
            except Exception as error:  # bytes without a recorded hash may be anything
                raise DataError(f"{sample}: is damaged ({error}). Copy or upload the shard again.") from error
            stored = Encoded(image, table) if isinstance(image, bytes) and table is not None else image
            yield sample, label, functools.partial(_same, stored)

    @property
    def stored(self) -> dict[str, Any]:
        """Basename, bytes and hashes of the stored file, from the index."""
        return stored_file(self.entry)

    def place(self) -> str:
        """Return the address of the stored file."""
        return join(self.remote, self.split, self.stored["basename"])

    def unpacked(self) -> bytes:
        """Return the shard uncompressed, after checking the hashes of its files.

        Raises:
            DataError: it is missing or damaged, even after downloading it again from a store.
        """
        try:
            if is_remote(self.remote):
                with suppress(ValueError, OSError):
                    return self._read(Path(self.local, self.split))
                return self._read(Path(self.local, self.split), download_again=True)
            return self._read(Path(self.remote, self.split))
        except (ValueError, OSError) as error:
            raise DataError(f"{self.place()}: is damaged ({error}). Copy or upload it again.") from error

    def _read(self, folder: Path, download_again: bool = False) -> bytes:
        """Try once; a ValueError means that a file does not match the index."""
        entry = self.entry
        variants = [entry] if not entry["zip_data"] else [entry, {**entry, "zip_data": None}]
        paths = [folder / stored_file(variant)["basename"] for variant in variants]
        if download_again or not any(path.is_file() for path in paths):
            if not is_remote(self.remote):
                raise DataError(f"{paths[0]}: is missing, though index.json lists it. Copy it again.")
            download(self.place(), paths[0], size=self.stored["bytes"])
            paths = paths[:1]
        pairs = zip(variants, paths, strict=False)
        return [unpack(variant, path.read_bytes()) for variant, path in pairs if path.is_file()][-1]


@dataclass(frozen=True)
class CatalogJob:
    """Some images of a data set in another form (loaders.archives)."""

    start: int  # index of the first one in the split
    catalog: Catalog  # of these alone
    renewal = ""

    def samples(self) -> Iterator[Sample]:
        """Yield the images."""
        read = self.catalog.reads_in_order()
        for place, label in enumerate(self.catalog.labels.tolist()):
            yield self.catalog.name_of(place), label, functools.partial(read, place)

    def lengths(self) -> list[int]:
        """Return the images' sizes in bytes."""
        return list(map(int, self.catalog.sizes))

    def only(self, index: int) -> CatalogJob:
        """Return a job for one of the images, given its index in the split."""
        return CatalogJob(index, self.catalog.take(slice(index - self.start, index - self.start + 1)))


Job = FolderJob | ShardJob | CatalogJob


@dataclass
class Looked:
    """Result of a job, with one item per image in all lists but `faults`."""

    digests: list[int] = field(default_factory=list)  # 64-bit hashes of the stored bytes
    bytes: list[int] = field(default_factory=list)  # lengths; 0 if unreadable
    labels: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width, height in pixels; (0, 0) if not an image
    faults: list[str] = field(default_factory=list)  # one sentence each
    deep: int = 0  # gray images with more than 8 bits
    odd: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)  # (what it is, what it should be)


def look(job: Job, progress: Callable[[int], None] = lambda _: None) -> Looked:
    """Check all images of a job, calling `progress` with 1 after each; raises a StoreOutOfReach at once."""
    result = Looked()
    try:
        for name, label, image in job.samples():
            stored, size, fault, deep = _open(image, job.renewal)
            if fault:
                result.faults.append(fault if fault.startswith(f"{name}: ") else f"{name}: {fault}")
            result.deep += deep
            if (kinds := (oddity(stored), expected_oddity(name))) != (None, None):
                result.odd[kinds] += 1
            result.digests.append(xxhash.xxh3_64_intdigest(stored))
            result.bytes.append(len(stored))
            result.labels.append(label)
            result.sizes.append(size)
            progress(1)
    except StoreOutOfReach:
        raise
    except DataError as error:
        result.faults.append(str(error))
    return result


def _same(stored: Stored) -> Stored:
    return stored


@functools.lru_cache(maxsize=4)
def _tables(folder: Path) -> SeekFile | None:
    """Open the seek tables of a split's folder; None if there are none, or they are damaged."""
    with suppress(ValueError, OSError):
        return open_tables(folder)
    return None


def _open(read: Callable[[], Stored], renewal: str) -> tuple[bytes, tuple[int, int], str, bool]:
    """Return an image's stored bytes, its (width, height), its fault or an empty string, and whether it is too deep."""
    stored = b""
    try:
        source = read()
        table = source.table if isinstance(source, Encoded) else None
        source = bytes(source.data) if isinstance(source, Encoded) else source
        stored = source if isinstance(source, bytes) else source.tobytes()
        if not stored:
            return stored, (0, 0), EMPTY, False
        height, width = check(source)
        fault = native.seek_table_fault(stored, bytes(table)) if table is not None else None
        return stored, (width, height), f"{fault} {renewal}" if fault else "", is_too_deep(source)
    except StoreOutOfReach:
        raise
    except DataError as error:
        return stored, (0, 0), str(error), False
    except Exception as error:  # each decoder raises its own
        return stored, (0, 0), f"{unreadable(error)}. Replace or delete it.", False
