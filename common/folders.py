"""A folder of a disk or of S3, for checkpoints and converted data: files appear in it whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common import s3
from common.addresses import is_s3, split_s3
from common.errors import DataError, UserError
from common.store_faults import fault
from common.whole_files import move, temporary_name, whole_file


class LocalFolder:
    """A folder of this machine's disk or of a shared file system, made when the first file is written.

    `scratch` is the folder below it in which files are written; the folder itself if empty.
    """

    def __init__(self, path: str | Path, scratch: str = "") -> None:
        self.path = Path(path)
        self.scratch = self.path / scratch

    def __str__(self) -> str:
        return str(self.path)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder, those of folders with a slash at the end; none if it does not exist.

        Leaves out pipes and devices, which a stranger's archive may hold: reading them would never end.
        """
        path = self.path / folder
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"{path}: cannot be listed ({error.strerror}).") from error
        files = [name for name in names if os.path.isfile(path / name)]
        return sorted(files + [f"{name}/" for name in names if os.path.isdir(path / name)])

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read ({error.strerror}).") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file, durably."""
        path = self.path / name
        try:
            for folder in (self.scratch, path.parent):
                folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path, temporary_name(self.scratch / path.name), durable=True) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                what = "the disk is full. Free some space, then type the same command to go on."
            else:
                what = f"cannot be written ({error.strerror}). Name another folder."
            raise DataError(f"{path.parent}: {what}") from error

    def put(self, file: Path, name: str) -> None:
        """Move a finished file of `scratch` to its name, durably."""
        move(file, self.path / name, durable=True)

    def copy(self, source: str, name: str) -> None:
        """Make `name` the same file as `source`, without a second copy where the file system has hard links."""
        with whole_file(self.path / name) as temporary:
            try:
                os.link(self.path / source, temporary)
            except OSError:
                shutil.copy2(self.path / source, temporary)

    def fetch(self, name: str, _into: Path) -> Path:
        """Return a path where the file can be read: its own."""
        return self.path / name

    def delete(self, name: str) -> None:
        """Remove a file; no error if it does not exist."""
        (self.path / name).unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        """Remove a folder with everything in it."""
        shutil.rmtree(self.path / folder, ignore_errors=True)


class S3Folder:
    """A folder of a bucket, s3://bucket/folder, reached with the standard AWS credentials and endpoint variables.

    Each method raises a DataError if its request fails.
    """

    def __init__(self, address: str) -> None:
        # The prefix of all keys in the folder: empty, or with a slash at its end.
        self.bucket, self.prefix = split_s3(address.removesuffix("/") + "/")
        if not self.bucket:
            raise DataError(f"{address}: names no bucket; write s3://bucket/folder.")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".removesuffix("/")

    @property
    def scratch(self) -> Path:
        """Where to write a file before put(): this machine's folder for temporary files."""
        return Path(tempfile.gettempdir())

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in a folder, those of folders with a slash at the end; none if it does not exist."""
        prefix, keys = self._prefix(folder), []
        for page in self._pages(folder, Delimiter="/"):
            keys += [item["Key"] for item in page.get("Contents", [])]
            keys += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        return sorted(key[len(prefix) :] for key in keys if key != prefix)

    def walk(self) -> Iterator[tuple[str, int, str]]:
        """Yield the name, size in bytes and ETag of every object below the folder."""
        for page in self._pages(""):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    yield item["Key"][len(self.prefix) :], item["Size"], item.get("ETag", "").strip('"')

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        content = io.BytesIO()
        self._download(name, content)
        return content.getvalue()

    def write(self, name: str, content: bytes) -> None:
        """Upload an object."""
        self._call("put_object", name, Key=self.prefix + name, Body=content)

    def put(self, file: Path, name: str) -> None:
        """Upload a finished file of `scratch` and remove it there."""
        self._call("upload_file", name, Key=self.prefix + name, Filename=str(file))
        file.unlink()

    def copy(self, source: str, name: str) -> None:
        """Copy an object inside the bucket."""
        origin = {"Bucket": self.bucket, "Key": self.prefix + source}
        self._call("copy", name, Key=self.prefix + name, CopySource=origin)

    def fetch(self, name: str, into: Path) -> Path:
        """Download an object into a folder; returns the file's path."""
        with (into / name).open("wb") as file:
            self._download(name, file)
        return into / name

    def delete(self, name: str) -> None:
        """Remove an object; no error if it does not exist."""
        self._call("delete_object", name, Key=self.prefix + name)

    def remove(self, folder: str) -> None:
        """Remove all objects below a folder."""
        for page in self._pages(folder):
            if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                self._call("delete_objects", folder, Delete={"Objects": keys, "Quiet": True})

    def _prefix(self, folder: str) -> str:
        """Return the prefix of the keys in a folder."""
        return f"{self.prefix}{folder}/" if folder else self.prefix

    def _pages(self, folder: str, **options: object) -> Iterator[dict[str, Any]]:
        """Yield the answers that list all keys below a folder."""
        token: dict[str, object] = {}
        while True:
            page = self._call("list_objects_v2", folder, Prefix=self._prefix(folder), **options, **token)
            yield page
            last, token = token, {"ContinuationToken": page.get("NextContinuationToken")}
            if not page.get("IsTruncated") or token == last:  # a store that would list forever
                return

    def _download(self, name: str, out: BinaryIO) -> None:
        try:
            s3.copy_object(f"{self}/{name}", out)
        except Exception as error:
            raise fault(error, f"{self}/{name}") from error

    def _call(self, operation: str, name: str, **arguments: object) -> dict[str, Any]:
        """Make a request about an object or a folder."""
        address = f"{self}/{name}".removesuffix("/")
        return s3.call(getattr(s3.client(), operation), address, Bucket=self.bucket, **arguments)


Folder = LocalFolder | S3Folder


def open_folder(path: str, scratch: str = "") -> Folder:
    """Return the folder at a path or an s3:// address; `scratch` is LocalFolder's."""
    return S3Folder(path) if is_s3(path) else LocalFolder(path, scratch)


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in [path, *path.absolute().parents] if folder.exists())


def check_folder(path: Path, option: str, advice: str) -> None:
    """Raise a UserError, before hours of work, if no file can be written to a folder, which need not exist yet."""
    try:
        tempfile.TemporaryFile(dir=path if path.is_symlink() else existing(path)).close()
    except OSError as error:
        raise UserError(f"{option} cannot be written ({error.strerror}); {advice}") from error


def split(path: str) -> tuple[Folder, str]:
    """Split the path of a file into its folder and its name."""
    folder, slash, name = path.rpartition("/")
    return open_folder(folder + slash or "."), name
