"""List the files of a data set in a folder or a store: name, size and, for shards, recorded hash."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.addresses import is_s3, without_credentials
from common.errors import DataError
from common.folders import S3Folder
from loaders.storage.kinds import is_archives
from loaders.transport.checksums import quick_hash, recorded_hash
from loaders.transport.remote import is_remote, join, read

INDEX, CLASSES = "index.json", "classes.json"
OWN_FOLDER = ".preload"  # of a copy, for its records
_LISTING_THREADS = 16  # NFS takes milliseconds to list a folder


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a data set."""

    name: str  # path relative to the data set's root, with slashes
    size: int  # bytes
    version: str = ""  # changes when the file does (modification time in a folder, ETag in S3); empty if unknown
    recorded: str = ""  # hash from an index.json, such as `sha1:2fd4...`; empty if there is none
    unpacked: int = 0  # bytes of the uncompressed shard that training will write next to this compressed one


def identity(source: str) -> str:
    """Return a source's absolute name without credentials, for the manifest."""
    return without_credentials(source).removesuffix("/") if is_remote(source) else os.path.abspath(source)


def is_wanted(name: str, splits: Sequence[str] | None) -> bool:
    """Whether a file belongs to the splits: in a split's folder, its .beton or .seek file, or classes.json."""
    if splits is None:
        return True
    first, slash, _ = name.partition("/")
    named = name.endswith((".beton", ".seek")) and name.startswith(tuple(splits))
    return first in splits if slash else name == CLASSES or named


def list_files(source: str, splits: Sequence[str] | None) -> list[SourceFile]:
    """List the files of a data set's splits (None: all) and its classes.json, sorted by name.

    Folders and S3 are listed; for other stores, the files are those named in each split's index.json.

    Raises:
        DataError: the source cannot be read, has no such split, or lacks shards that an index.json lists.
    """
    if is_remote(source) and not is_s3(source):
        return sorted(_list_indexed(source, splits or ("train", "val")), key=lambda file: file.name)
    listing = list_s3(source) if is_remote(source) else _list_folder(source, splits)
    files = {file.name: file for file in listing if is_wanted(file.name, splits)}
    files = {name: file for name, file in files.items() if not name.startswith(f"{OWN_FOLDER}/")}
    if not files:
        raise DataError(f"{without_credentials(source)}: holds no files. Check the path.")
    known = any(name.startswith(("train/", "val/")) or name.endswith(".beton") for name in files)
    if splits is None and not (known or is_archives(source)):
        raise DataError(
            f"{without_credentials(source)}: is not a data set: it has no train/, no val/, no .beton file and no "
            "archives. Check the path."
        )
    for split in splits or ():
        if not any(name.startswith((f"{split}/", split)) for name in files):
            raise DataError(f"{without_credentials(source)}: has no {split}/. Check the path and the split's name.")
    for folder in _shard_folders(files):
        data, index = _read_index(source, folder)
        name = os.path.join(folder, INDEX)
        files[name] = replace(files[name], size=len(data), recorded=quick_hash(data))
        _add_recorded(files, source, folder, index)
    return [files[name] for name in sorted(files)]


def list_s3(folder: str) -> Iterator[SourceFile]:
    """Yield all files below a folder of S3; raises a DataError if it cannot be listed."""
    for name, size, etag in S3Folder(folder).walk():
        yield SourceFile(below(name, folder), size, etag)


def below(name: str, source: str) -> str:
    """Return a file's name from a store or a manifest; raises a DataError if its copy would be outside the copy."""
    if name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
        raise DataError(f"{without_credentials(source)}: {name!r} is not a valid file name on a disk. Rename it.")
    return name


def leads_out(folder: str | Path, name: str) -> bool:
    """Whether a file's folder is outside `folder`, because of a link."""
    inner = Path(folder, name).parent
    root, real = os.path.realpath(folder), os.path.realpath(inner)
    return real != root and not real.startswith(root.rstrip("/") + "/")


def _list_folder(source: str, splits: Sequence[str] | None) -> list[SourceFile]:
    """List the files of a folder and its subfolders, following links, many folders at a time."""
    if not os.path.isdir(source):
        what = "is a file; name the folder that contains it" if os.path.exists(source) else "no such folder"
        raise DataError(f"{source}: {what}. A data set is a folder, or a store's address such as s3://bucket/folder.")
    listed: list[SourceFile] = []
    folders = [""]
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        while folders:
            subfolders: list[str] = []
            for files, inner in pool.map(lambda folder: _scan(source, folder), folders):
                listed += files
                subfolders += inner
            folders = [name for name in subfolders if splits is None or name.split("/")[0] in splits]
    return listed


def _scan(source: str, folder: str) -> tuple[list[SourceFile], list[str]]:
    """Return the files and the subfolders of one folder."""
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
                        continue  # a link to a pipe or a device, which can be read forever
                    files.append(SourceFile(name, status.st_size, str(status.st_mtime_ns)))
    except OSError as error:
        path = error.filename or os.path.join(source, folder)
        raise DataError(f"{path}: cannot be read ({error.strerror}). Repair or delete it.") from error
    return files, folders


def _list_indexed(source: str, splits: Sequence[str]) -> Iterator[SourceFile]:
    """Yield each split's index.json, the shards that it names, and classes.json if it exists."""
    for split in splits:
        data, index = _read_index(source, split)
        yield SourceFile(join(split, INDEX), len(data), recorded=quick_hash(data))
        for shard in index["shards"]:
            raw, packed = shard["raw_data"], shard["zip_data"]
            info = packed or raw
            name = join(split, info["basename"])
            yield SourceFile(name, info["bytes"], "", recorded_hash(info), raw["bytes"] if packed else 0)
    with suppress(DataError):  # it is optional, and the store can be reached: it had the indexes
        data = read(join(source, CLASSES))
        yield SourceFile(CLASSES, len(data), recorded=quick_hash(data))


def _shard_folders(files: dict[str, SourceFile]) -> list[str]:
    """Return the folders whose index.json lists MDS shards: a shard is in or below them, or nothing else is."""
    contents = defaultdict(set)
    for name in files:
        folder, _, last = name.rpartition("/")
        contents[folder].add(last)
        while folder:
            folder, _, inner = folder.rpartition("/")
            contents[folder] |= {inner, last} if folder and last.startswith("shard.") else {inner}
    indexed = [(folder, names - {INDEX}) for folder, names in contents.items() if INDEX in names]
    return [folder for folder, names in indexed if not names or any(name.startswith("shard.") for name in names)]


def _read_index(source: str, folder: str) -> tuple[bytes, dict[str, Any]]:
    from loaders.storage.streaming import read_index  # takes seconds to import, and is needed only for shards

    return read_index(source, folder)


def _add_recorded(files: dict[str, SourceFile], source: str, folder: str, index: dict[str, Any]) -> None:
    """Add recorded hashes and uncompressed sizes to shards; DataError if one is missing or has another size."""
    for shard in index["shards"]:
        raw, packed = shard["raw_data"], shard["zip_data"]
        infos = {os.path.join(folder, info["basename"]): info for info in (raw, packed) if info}
        present = [name for name in infos if name in files]
        if not present:
            path = without_credentials(join(source, list(infos)[-1]))
            raise DataError(f"{path}: is missing, though index.json lists it. Copy or upload it again.")
        for name in present:
            info, size = infos[name], files[name].size
            if size != info["bytes"]:
                damage = f"is damaged ({size} bytes instead of {info['bytes']})"
                raise DataError(f"{without_credentials(join(source, name))}: {damage}. Copy or upload it again.")
            unpacked = raw["bytes"] if len(present) == 1 and info is packed else 0
            files[name] = replace(files[name], recorded=recorded_hash(info), unpacked=unpacked)
