"""A folder of checkpoints, on disk or in S3, behind the five things that are done with one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from common.addresses import is_s3, split_s3_folder
from config import UserError
from loaders.transport import remote

UNFINISHED = ".checkpoint-"  # what the names of files start with that are being written
# A store that never answers is given up after twice ATTEMPTS * READ_TIMEOUT = 90 s: a failed upload is also called off.
CONNECT_TIMEOUT, READ_TIMEOUT, ATTEMPTS = 5.0, 15.0, 3
PATIENCE = 30.0  # seconds of other faults that may pass
_PAUSE = 2.0


class LocalFolder:
    """A folder on this node's disk or on a shared file system."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __str__(self) -> str:
        return str(self.folder)

    def check_writable(self) -> None:
        """Raises UserError if nothing can be written there; makes no folder yet."""
        ancestors = [self.folder, *self.folder.absolute().parents]
        try:
            with tempfile.TemporaryFile(dir=next(folder for folder in ancestors if folder.exists())):
                pass
        except OSError as error:
            raise UserError(
                f"save_folder: {self.folder} cannot be written ({error.strerror}); "
                "give another one with save_folder=FOLDER, or save_folder=null to keep no checkpoints"
            ) from None

    def names(self) -> list[str]:
        """The names of the files there; none if the folder does not exist.

        Not of what a stranger's archive may hold beside them: reading a pipe or a device would never end.
        """
        there = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(name for name in there if os.path.isfile(self.folder / name))

    def put(self, file: Path, name: str) -> None:
        """Move a finished file there under its name: all of it or nothing, even when the power fails."""
        os.replace(file, self.folder / name)
        _sync_folder(self.folder)

    def copy(self, source: str, name: str) -> None:
        """Make `name` the same file as `source`, without a second copy where the file system has hard links."""
        temporary = self.folder / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.folder / source, temporary)
        except OSError:
            shutil.copy2(self.folder / source, temporary)
        os.replace(temporary, self.folder / name)
        temporary.unlink(missing_ok=True)  # it stays where `name` was the same file already

    def fetch(self, name: str, into: Path) -> Path:
        """A path where the file can be read: its own."""
        return self.path_of(name, into)

    def path_of(self, name: str, into: Path) -> Path:
        """Where fetch() puts a file."""
        return self.folder / name

    def point(self, alias: str, name: str) -> None:
        """Make `alias` a link to a file, or a copy where the file system knows no links."""
        temporary = self.folder / f".{alias}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(name)
            os.replace(temporary, self.folder / alias)
        except OSError:
            self.copy(name, alias)

    def delete(self, name: str) -> None:
        """Remove a file; no error if it is gone."""
        (self.folder / name).unlink(missing_ok=True)

    def unfinished(self) -> list[Path]:
        """What is being written, or was when its run was killed."""
        return list(self.folder.glob(".*.tmp"))

    def scratch(self) -> Path:
        """Where to write a file before put()."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder


class S3Folder:
    """A prefix in an S3 bucket, reached with the standard AWS credentials and endpoint variables."""

    def __init__(self, uri: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket, self.prefix = split_s3_folder(uri)
        self.client = boto3.client(
            "s3",
            endpoint_url=os.environ.get("S3_ENDPOINT_URL"),  # Composer's and Streaming's name; boto3 reads its own
            config=Config(
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".removesuffix("/")

    def check_writable(self) -> None:
        """Raises UserError if nothing can be written there: before the run, not after its first epoch."""
        self._call("put_object", Key=self._key(".writable"), Body=b"")
        self._call("delete_object", Key=self._key(".writable"))

    def names(self) -> list[str]:
        """The names of the objects directly under the prefix."""
        names: list[str] = []
        token: dict[str, str | None] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self._key(""), Delimiter="/", **token)
            names += [item["Key"].rsplit("/", 1)[-1] for item in page.get("Contents", [])]
            last, token = token, {"ContinuationToken": page.get("NextContinuationToken")}
            if not page.get("IsTruncated") or token == last:  # of a store that would list for ever
                return sorted(names)

    def put(self, file: Path, name: str) -> None:
        """Upload a file and remove the local one; an object appears whole or not at all."""
        self._call("upload_file", Filename=str(file), Key=self._key(name))
        file.unlink()

    def copy(self, source: str, name: str) -> None:
        """Copy an object inside the bucket."""
        self._call("copy", CopySource={"Bucket": self.bucket, "Key": self._key(source)}, Key=self._key(name))

    def fetch(self, name: str, into: Path) -> Path:
        """Download an object into a folder."""
        from boto3.s3.transfer import TransferConfig

        into.mkdir(parents=True, exist_ok=True)
        once = TransferConfig(num_download_attempts=1)  # each of which has the client's own
        self._call("download_file", Key=self._key(name), Filename=str(self.path_of(name, into)), Config=once)
        return self.path_of(name, into)

    def path_of(self, name: str, into: Path) -> Path:
        """Where fetch() puts a file."""
        return into / name

    def point(self, alias: str, name: str) -> None:
        """S3 knows no links, and needs none: the newest is found by listing."""

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is gone."""
        self._call("delete_object", Key=self._key(name))

    def unfinished(self) -> list[Path]:
        """What is being written on this machine, by any run, or was when its run was killed."""
        return list(Path(tempfile.gettempdir()).glob(f"{UNFINISHED}*.tmp"))

    def scratch(self) -> Path:
        """Where to write a file before put()."""
        return Path(tempfile.gettempdir())

    def _key(self, name: str) -> str:
        return self.prefix + name

    def _call(self, operation: str, **arguments: object) -> dict:
        """One S3 call; a fault becomes a sentence that names the folder, if it does not pass."""
        from boto3.exceptions import Boto3Error

        deadline = time.monotonic() + PATIENCE
        while True:
            draws = random.getstate()  # a retry's pause draws from the generator that belongs to the training
            try:
                return getattr(self.client, operation)(Bucket=self.bucket, **arguments)
            except Exception as error:  # also what an answer that is none of S3's makes boto3 say
                cause: BaseException = error
                if isinstance(error, Boto3Error):  # boto3's own faults wrap what S3 said
                    cause = getattr(error, "last_exception", None) or error.__context__ or error
                if not remote.may_pass(cause) or time.monotonic() + _PAUSE > deadline:
                    raise remote.fault(cause, str(self)) from None
            finally:
                random.setstate(draws)
            time.sleep(_PAUSE)


Folder = LocalFolder | S3Folder


def open_folder(path: str) -> Folder:
    """The folder at a path or an s3:// address."""
    return S3Folder(path) if is_s3(path) else LocalFolder(path)


def split(path: str) -> tuple[Folder, str]:
    """A checkpoint's address as its folder and its name."""
    folder, slash, name = path.rpartition("/")
    return open_folder(folder + slash or "."), name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it for folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
