"""Where converted data go: a folder of a disk, or of a bucket in S3. Files appear there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from common.addresses import is_s3, split_s3, split_s3_folder
from common.errors import DataError
from loaders.storage.unfinished import WORK
from loaders.transport.remote import StoreOutOfReach, fault, is_remote, s3_client


@dataclass(frozen=True)
class LocalDestination:
    """A folder of a disk.

    Args:
        path: the folder; made when the first file is written.
    """

    path: str

    def place(self, name: str) -> str:
        """A file's or folder's whole path, for messages."""
        return os.path.join(self.path, name) if name else self.path

    def removal(self, *names: str) -> str:
        """What to type to remove folders."""
        return shlex.join(["rm", "-r", *map(self.place, names)])

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, sorted; none if there is no such folder."""
        try:
            return sorted(os.listdir(self.place(folder)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"{self.place(folder)}: cannot be looked into ({error.strerror}).") from error

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            DataError: it is missing, or cannot be read.
        """
        try:
            return Path(self.place(name)).read_bytes()
        except OSError as error:
            raise DataError(f"{self.place(name)}: cannot be read ({error.strerror}).") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a passing name, make sure that it is on the disk, and move it into place.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        path, part = Path(self.place(name)), Path(self.place(WORK), f"{uuid.uuid4().hex}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise DataError(self._unwritable(path.parent, error)) from error

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(self.place(folder), ignore_errors=True)

    def delete(self, name: str) -> None:
        """Remove a file; no error if it is gone."""
        Path(self.place(name)).unlink(missing_ok=True)

    def check_room(self, wanted: int) -> None:
        """Compare the disk's free space with what is to be written.

        Args:
            wanted: bytes.

        Raises:
            DataError: it is too little.
        """
        path = Path(self.path).absolute()
        there = next(folder for folder in [path, *path.parents] if folder.exists())
        free = shutil.disk_usage(there).free
        if wanted > free:
            raise DataError(
                f"{self.path}: about {wanted / 1e6:,.1f} MB are to be written, but {free / 1e6:,.1f} MB are free. "
                "Free some space, name another disk, or make the images smaller (--max-size 500)."
            )

    def _unwritable(self, folder: Path, error: OSError) -> str:
        """Why nothing can be written to a folder."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{folder}: the disk is full. Free some space, then type the same command to go on."
        return f"{folder}: cannot be written ({error.strerror}). Name another folder."


@dataclass(frozen=True)
class S3Destination:
    """A folder of a bucket, reached with the standard AWS credentials and endpoint variables.

    Args:
        path: s3://bucket/folder.
    """

    path: str

    def place(self, name: str) -> str:
        """An object's whole address, for messages."""
        return f"{self.path}/{name}" if name else self.path

    def removal(self, *names: str) -> str:
        """What to type to remove folders."""
        return " && ".join(shlex.join(["aws", "s3", "rm", "--recursive", self.place(name)]) for name in names)

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, sorted; none if there is no such folder."""
        bucket, prefix = split_s3_folder(self.place(folder))
        try:
            pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
            found = [
                item[key]
                for page in pages
                for kind, key in (("Contents", "Key"), ("CommonPrefixes", "Prefix"))
                for item in page.get(kind, [])
            ]
        except Exception as error:
            raise fault(error, self.place(folder)) from error
        return sorted(filter(None, (name[len(prefix) :].rstrip("/") for name in found)))

    def read(self, name: str) -> bytes:
        """An object's bytes.

        Raises:
            DataError: it is missing, or cannot be read.
        """
        bucket, key = split_s3(self.place(name))
        try:
            return bytes(s3_client().get_object(Bucket=bucket, Key=key)["Body"].read())
        except Exception as error:
            raise fault(error, self.place(name)) from error

    def write(self, name: str, data: bytes) -> None:
        """Upload an object.

        Raises:
            DataError: S3 does not take it.
        """
        bucket, key = split_s3(self.place(name))
        try:
            s3_client().put_object(Bucket=bucket, Key=key, Body=data)
        except Exception as error:
            if str(getattr(error, "response", {}).get("Error", {}).get("Code", "")) in ("AccessDenied", "403"):
                raise StoreOutOfReach(
                    f"{self.place(name)}: cannot be written (access denied). These credentials may not write to the "
                    f"bucket {bucket!r}: use others, or name another destination."
                ) from error
            raise fault(error, self.place(name)) from error

    def remove(self, folder: str) -> None:
        """Remove all objects below a folder."""
        bucket, prefix = split_s3_folder(self.place(folder))
        try:
            client = s3_client()
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
                if keys:
                    client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        except Exception as error:
            raise fault(error, self.place(folder)) from error

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is gone."""
        bucket, key = split_s3(self.place(name))
        try:
            s3_client().delete_object(Bucket=bucket, Key=key)
        except Exception as error:
            raise fault(error, self.place(name)) from error

    def check_room(self, wanted: int) -> None:
        """Buckets have no end."""


Destination = LocalDestination | S3Destination


def open_destination(path: str) -> Destination:
    """The folder at a path or an s3:// address.

    Raises:
        DataError: it is neither.
    """
    if is_s3(path):
        if not split_s3(path)[0]:
            raise DataError(f"{path}: names no bucket. Say s3://bucket/folder.")
        return S3Destination(path.removesuffix("/"))
    if is_remote(path):
        raise DataError(f"{path}: shards are written to a local folder or to s3://bucket/folder, and nowhere else.")
    return LocalDestination(path)
