"""Names of the images to classify, found as they are needed: a folder of a million takes no memory."""

from __future__ import annotations

import glob
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from common.addresses import is_s3
from common.errors import ConfigError, DataError, UserError
from common.folders import S3Folder
from common.s3 import copy_object
from common.store_faults import fault
from common.suggest import did_you_mean
from loaders.storage.imagefolder import EXTENSIONS, is_image
from loaders.storage.seek_file import read_file
from loaders.transport.remote import is_remote

STDIN = "-"
MOST_COUNTED = 100_000  # images of which the time left is told
MOST_BYTES = 2**28  # of an image file
_GLOB = set("*?[")


class NotAnImage(Exception):
    """A file that is not read; the message follows its name."""


def find(paths: Sequence[str], separator: bytes = b"\n") -> Iterator[str]:
    """Return the names of all images at the paths; `separator` ends each name on stdin.

    Raises:
        ConfigError: listing every path where there is none.
    """
    found, problems = [], []
    for path in paths:
        try:
            names = _at(path, separator)
            # Not of stdin, which may have none yet.
            found.append(names if path == STDIN else chain([next(names)], names))
        except StopIteration:
            problems.append(f"{path}: holds no images ({', '.join(EXTENSIONS)}); name a file or another folder")
        except UserError as error:
            problems.append(str(error))
    if paths.count(STDIN) > 1:
        problems.append("- is given twice, but stdin can be read only once")
    if problems:
        raise ConfigError(*problems)
    return chain.from_iterable(found)


def counted(names: Iterator[str]) -> tuple[Iterator[str], int]:
    """Return the same names and how many they are; 0 for more than MOST_COUNTED."""
    first = list(islice(names, MOST_COUNTED + 1))
    return chain(first, names), len(first) if len(first) <= MOST_COUNTED else 0


def _at(path: str, separator: bytes) -> Iterator[str]:
    """Return the names at one path; ConfigError if it cannot hold images."""
    if path == STDIN:
        return _from_stdin(separator)
    if is_s3(path):
        return iter([path]) if is_image(path) else _in_store(path)
    if is_remote(path):
        raise ConfigError(f"{path}: is not read; give files, folders or s3://bucket/..., and download others first")
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.lexists(path):
        return iter([path])
    matches = sorted(glob.iglob(path, recursive=True)) if _GLOB & set(path) else []
    if not matches:
        folder = Path(path).parent
        there = sorted(os.listdir(folder)) if folder.is_dir() else []
        what = "matches no file" if _GLOB & set(path) else "no such file or folder"
        raise ConfigError(f"{path}: {what}{did_you_mean(Path(path).name, there)}")
    return chain.from_iterable(_in_folder(one) if os.path.isdir(one) else [one] for one in matches)


def _in_folder(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the image files below a folder, in the order of an image folder's class; links are followed."""
    real = os.path.realpath(folder)
    if real in above:
        raise DataError(f"{folder}: is a link to {real}, which contains it. Remove it, or name other folders.")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). Make it readable, or remove it.") from error
    yield from (entry.path for entry in entries if is_image(entry.name) and not entry.is_dir())
    for entry in entries:
        if entry.is_dir():
            yield from _in_folder(entry.path, (*above, real))


def _in_store(address: str) -> Iterator[str]:
    folder = S3Folder(address)
    return (f"{folder}/{name}" for name, _, _ in folder.walk() if is_image(name))


def _from_stdin(separator: bytes) -> Iterator[str]:
    rest, file = b"", sys.stdin.buffer.fileno()
    while data := os.read(file, 1 << 16):
        *names, rest = (rest + data).split(separator)
        yield from _named(names, separator)
    yield from _named([rest], separator)


def _named(names: Sequence[bytes], separator: bytes) -> Iterator[str]:
    """Yield the names that are not empty; ConfigError if they end otherwise than stated."""
    for name in names:
        if b"\0" in name:
            raise ConfigError("-: the names on stdin end with null bytes, as from find -print0; add -0")
        # A list that was written on Windows.
        if stripped := name.removesuffix(b"\r") if separator == b"\n" else name:
            yield os.fsdecode(stripped)


def read(name: str) -> bytes:
    """Return an image file's bytes.

    Raises:
        Exception: an OSError, NotAnImage or DataError for this file; StoreOutOfReach for all files of a store.
    """
    if is_s3(name):
        return _from_store(name)
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        raise NotAnImage("is a folder; give it as a PATH to classify the images in it")
    if not stat.S_ISREG(status.st_mode):
        raise NotAnImage("is not a file")  # reading a pipe or a device may never end
    if status.st_size > MOST_BYTES:
        raise NotAnImage(f"is too large ({status.st_size:,} bytes; at most {MOST_BYTES:,})")
    return read_file(name)[0]


def _from_store(address: str) -> bytes:
    content = io.BytesIO()
    try:
        copy_object(address, content, MOST_BYTES)
    except Exception as error:
        raise fault(error, address) from error
    return content.getvalue()
