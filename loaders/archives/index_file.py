"""Indexes of data sets, kept in the user's cache folder: one process of a machine builds each, and the others read it.

An index counts as long as no file of the data set has another name, size or modification time, and the code that built
it is the same. Trees of single images are listed each time, as image folders are.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.addresses import is_s3
from common.folders import S3Folder
from common.whole_files import whole_file
from loaders.archives.catalog import Catalog, DataCopy
from loaders.archives.forms import ReadOptions, open_as, recognize
from loaders.archives.place import GZIPPED, Place, read_range
from loaders.storage.shard_index import are_shards

MOST_FILES = 10_000  # of a data set whose index is kept; more are a tree of images, which is quick to list
LARGE = 1 << 30  # bytes of a data set from which indexing takes long enough to be announced
DEFAULT = ReadOptions()
_ARRAYS = ("file", "names", "offsets", "sizes", "labels")


def open_indexed(path: str, options: ReadOptions = DEFAULT, *, in_stores_alone: bool = False) -> DataCopy | None:
    """Open the data set at a path from its index in the cache folder, or as `open_copy` does, and raise as that does.

    `in_stores_alone` leaves the cache alone for disks, for programs that read every image anyway.
    """
    if options.kind is None and is_s3(path) and are_shards(path):
        return None
    place = Place(path)
    if (name := recognize(place, options)) is None:
        return None
    state = _state(place, options) if is_s3(path) or not in_stores_alone else None
    if state is None:
        return open_as(name, place, options)
    kept = _cache() / f"{hashlib.sha256(os.fsencode(_identity(place))).hexdigest()[:16]}.npz"
    if copy := _read(kept, state):
        return copy
    with _alone(kept):
        if copy := _read(kept, state):  # another process has built it meanwhile
            return copy
        if sum(size for _, size, _ in json.loads(state)[-1]) > LARGE:
            print(f"{place.given}: indexing its images, once; the index is kept in {kept.parent}", flush=True)
        copy = open_as(name, place, options)
        if all(map(is_in_ranges, copy.splits.values())):
            with contextlib.suppress(OSError), whole_file(kept) as temporary:
                temporary.write_bytes(_packed(copy, state))
    return copy


def is_in_ranges(catalog: Catalog) -> bool:
    """Whether each image is a range of bytes of a file as it is.

    Files of gzip are not: what makes reading from their middle fast is in the process that has indexed them.
    """
    return catalog.reader is read_range and not any(name.endswith(GZIPPED) for name in catalog.files)


def _cache() -> Path:
    """Return the folder of the indexes, created if that is possible."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "resnet-recipes", "index")
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    return cache


def _identity(place: Place) -> str:
    """Return the name of a data set on this machine."""
    return place.given if is_s3(place.given) else os.path.realpath(place.given)


def _state(place: Place, options: ReadOptions) -> str | None:
    """Return the names, sizes and times of a data set's files, with the code's digest; None for too many files."""
    files: list[tuple[str, int, int | str]] = []
    for entry in _files(place):
        files.append(entry)
        if len(files) > MOST_FILES:
            return None
    return json.dumps([_code(), _identity(place), vars(options), sorted(files)])


def _files(place: Place) -> Iterator[tuple[str, int, int | str]]:
    """Yield the name, size, and time or ETag of each file; for a single file, of those next to it as well."""
    if isinstance(place.folder, S3Folder):
        yield from ((name, size, tag) for name, size, tag in place.folder.walk() if not (place.only and "/" in name))
        return
    for folder, below, names in os.walk(place.root, followlinks=True):
        if place.only:
            below.clear()
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a broken link: whoever needs the file reports it
                status = os.stat(path)
                yield path, status.st_size, status.st_mtime_ns


@functools.cache
def _code() -> str:
    """Return a digest of the code that builds indexes."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _packed(copy: DataCopy, state: str) -> bytes:
    """Return an index as the bytes of a file."""
    about = {
        "state": state,
        "what": copy.what,
        "classes": copy.classes,
        "remarks": copy.remarks,
        "val_labels": copy.val_labels,
        "splits": {split: [list(catalog.files), catalog.mixed] for split, catalog in copy.splits.items()},
    }
    arrays = {f"{split} {name}": getattr(catalog, name) for split, catalog in copy.splits.items() for name in _ARRAYS}
    out = io.BytesIO()
    np.savez(out, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    return out.getvalue()


def _read(kept: Path, state: str) -> DataCopy | None:
    """Return the data set that an index describes; None if there is no index of this state of it."""
    try:
        with kept.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            if about["state"] != state:
                return None
            splits = {
                split: Catalog(files, read_range, **{n: file[f"{split} {n}"] for n in _ARRAYS}, mixed=mixed)
                for split, (files, mixed) in about["splits"].items()
            }
            return DataCopy(about["what"], splits, about["classes"], about["remarks"], about["val_labels"])
    except Exception:  # damaged files make numpy and zipfile raise anything; the index is then built again
        return None


@contextlib.contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Hold a file's lock, which the kernel releases when this process ends; without locks here, go on at once."""
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = os.open(kept.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
