"""What a data set consists of, wherever it is stored: each file's name, size and, for shards, recorded hash."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.addresses import is_s3, without_credentials
from common.errors import DataError
from common.folders import S3Folder
from loaders.transport.checksums import quick_hash, recorded_hash
from loaders.transport.remote import download, is_remote, join

INDEX, CLASSES = "index.json", "classes.json"
OWN_FOLDER = ".preload"  # below a copy: how far it is
_LISTING_THREADS = 16  # a folder on NFS answers in milliseconds


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a data set.

    Args:
        name: relative to the data set's root, with slashes.
        size: in bytes.
        version: changes when the file does (a folder's time of modification, S3's ETag); empty where nothing tells.
        recorded: the hash that an index.json records for it, as in `sha1:2fd4...`; empty where there is none.
        unpacked: bytes that training will need beside it, where it is a compressed shard.
    """

    name: str
    size: int
    version: str = ""
    recorded: str = ""
    unpacked: int = 0


def identity(source: str) -> str:
    """How a source is named in a manifest: without credentials, and absolute."""
    return without_credentials(source).removesuffix("/") if is_remote(source) else os.path.abspath(source)


def is_wanted(name: str, splits: Sequence[str] | None) -> bool:
    """Whether a file belongs to the splits: in their folders, packed for one of them, or the list of classes."""
    if splits is None:
        return True
    first, slash, _ = name.partition("/")
    packed = name.endswith(".beton") and name.startswith(tuple(splits))
    return first in splits if slash else name == CLASSES or packed


def list_files(source: str, splits: Sequence[str] | None, scratch: Path) -> list[SourceFile]:
    """Every file of a data set, sorted by name.

    A folder is walked and a bucket of S3 listed; of other stores, each split's index.json tells what there is.

    Args:
        source: a folder, or a store's address.
        splits: only these (and classes.json); None for everything.
        scratch: a folder for small files that have to be fetched to know.

    Raises:
        DataError: it cannot be read, has no such split, or lacks shards that an index.json lists.
    """
    if is_remote(source) and not is_s3(source):
        return sorted(_list_indexed(source, splits or ("train", "val"), scratch), key=lambda file: file.name)
    listing = list_s3(source) if is_remote(source) else _list_folder(source, splits)
    files = {file.name: file for file in listing if is_wanted(file.name, splits)}
    files = {name: file for name, file in files.items() if not name.startswith(f"{OWN_FOLDER}/")}
    if not files:
        raise DataError(f"{without_credentials(source)}: holds no files. Check the path.")
    if splits is None and not any(name.startswith(("train/", "val/")) or name.endswith(".beton") for name in files):
        raise DataError(
            f"{without_credentials(source)}: is no data set: it holds neither train/ nor val/, nor a .beton file. "
            "Check the path."
        )
    for split in splits or ():
        if not any(name.startswith((f"{split}/", split)) for name in files):
            raise DataError(f"{without_credentials(source)}: has no {split}/. Check the path, and the split's name.")
    for folder in _shard_folders(files):
        data, index = _read_index(source, folder)
        name = join(folder, INDEX) if folder else INDEX
        files[name] = replace(files[name], size=len(data), recorded=quick_hash(data))
        _note_hashes(files, source, folder, index)
    return [files[name] for name in sorted(files)]


def list_s3(folder: str) -> Iterator[SourceFile]:
    """Everything below a folder of S3.

    Raises:
        DataError: it cannot be listed.
    """
    for name, size, etag in S3Folder(folder).walk():
        yield SourceFile(below(name, folder), size, etag)


def below(name: str, source: str) -> str:
    """A name that a store or a manifest gave, after making sure that its copy lands in the destination."""
    if name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
        raise DataError(f"{without_credentials(source)}: {name!r} is no name for a file of a disk. Rename it.")
    return name


def leads_out(folder: str | Path, name: str) -> bool:
    """Whether a folder of a file's name is a link to somewhere outside of `folder`."""
    inner = Path(folder, name).parent
    root, real = os.path.realpath(folder), os.path.realpath(inner)
    return real != root and not real.startswith(root.rstrip("/") + "/")


def _list_folder(source: str, splits: Sequence[str] | None) -> list[SourceFile]:
    """Everything below a folder of a disk, links followed, many folders at a time."""
    if not os.path.isdir(source):
        what = "is a file; name the folder that it lies in" if os.path.exists(source) else "no such folder"
        raise DataError(f"{source}: {what}. A data set is a folder, or a store's address as in s3://bucket/folder.")
    found: list[SourceFile] = []
    folders = [""]
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        while folders:
            below: list[str] = []
            for files, inner in pool.map(lambda folder: _scan(source, folder), folders):
                found += files
                below += inner
            folders = [name for name in below if splits is None or name.split("/")[0] in splits]
    return found


def _scan(source: str, folder: str) -> tuple[list[SourceFile], list[str]]:
    """The files in one folder, and the folders in it."""
    files, folders = [], []
    try:
        with os.scandir(os.path.join(source, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(name)
                elif entry.is_file() or entry.is_symlink():
                    status = entry.stat()
                    if not stat.S_ISREG(status.st_mode):
                        continue  # a link to a pipe or a device, which has no end
                    files.append(SourceFile(name, status.st_size, str(status.st_mtime_ns)))
    except OSError as error:
        place = error.filename or os.path.join(source, folder)
        raise DataError(f"{place}: cannot be read ({error.strerror}). Mend or delete it.") from error
    return files, folders


def _list_indexed(source: str, splits: Sequence[str], scratch: Path) -> Iterator[SourceFile]:
    """Shards of a store that is not listed: what each split's index.json names, and classes.json if there is one."""
    for split in splits:
        data, index = _read_index(source, split)
        yield SourceFile(join(split, INDEX), len(data), recorded=quick_hash(data))
        for shard in index["shards"]:
            raw, packed = shard["raw_data"], shard.get("zip_data")
            info = packed or raw
            name = join(split, info["basename"])
            yield SourceFile(name, info["bytes"], "", recorded_hash(info), raw["bytes"] if packed else 0)
    copy = scratch / CLASSES
    try:
        download(join(source, CLASSES), copy)
    except DataError:
        return  # it is optional, and the indexes could be read from the same place
    yield SourceFile(CLASSES, copy.stat().st_size, recorded=quick_hash(copy.read_bytes()))


def _shard_folders(files: dict[str, SourceFile]) -> list[str]:
    """Folders whose index.json is one of MDS shards: those with a shard in or below them, or with nothing else."""
    beside = defaultdict(set)
    for name in files:
        folder, _, last = name.rpartition("/")
        beside[folder].add(last)
        while folder:  # a folder counts as something, too
            folder, _, inner = folder.rpartition("/")
            beside[folder] |= {inner, last} if folder and last.startswith("shard.") else {inner}
    indexed = [(folder, names - {INDEX}) for folder, names in beside.items() if INDEX in names]
    return [folder for folder, names in indexed if not names or any(name.startswith("shard.") for name in names)]


def _read_index(source: str, folder: str) -> tuple[bytes, dict[str, Any]]:
    """An index.json of shards, checked; without credentials in what is said of it."""
    from loaders.storage.streaming import read_index  # seconds to import, needed only for shards

    try:
        return read_index(source, folder)
    except DataError as error:
        raise type(error)(without_credentials(str(error))) from error


def _note_hashes(files: dict[str, SourceFile], source: str, folder: str, index: dict[str, Any]) -> None:
    """Add to a folder's shards what their index knows of them, and compare.

    Raises:
        DataError: a shard is missing or has another size.
    """
    for shard in index["shards"]:
        raw, packed = shard["raw_data"], shard.get("zip_data")
        infos = {join(folder, info["basename"]) if folder else info["basename"]: info for info in (raw, packed) if info}
        there = [name for name in infos if name in files]
        if not there:
            place = without_credentials(join(source, list(infos)[-1]))
            raise DataError(f"{place}: is missing, though index.json lists it. Copy or upload it again.")
        for name in there:
            info, size = infos[name], files[name].size
            if size != info["bytes"]:
                place = without_credentials(join(source, name))
                what = f"is damaged ({size} bytes instead of {info['bytes']})"
                raise DataError(f"{place}: {what}. Copy or upload it again.")
            unpacked = raw["bytes"] if len(there) == 1 and info is packed else 0
            files[name] = replace(files[name], recorded=recorded_hash(info), unpacked=unpacked)
