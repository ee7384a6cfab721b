"""Fetching one small or large file from where a data set is stored, and saying in a sentence why it did not work."""

import errno
import functools
import os
import shutil
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

from config.errors import DataError

CONNECT_TIMEOUT = 6.0  # seconds, each attempt
READ_TIMEOUT = 20.0
ATTEMPTS = 3  # with pauses of at most 1 and 2 seconds between them
_CHUNK = 1 << 20
_SETTINGS = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")


class StoreOutOfReach(DataError):
    """No file of the store can be read, whichever it is."""


_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ProxyConnectionError",
    "ConnectionError",
    "IncompleteReadError",
    "ResponseStreamingError",
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ABSENT = {"404", "NoSuchKey"}


def is_remote(path: str) -> bool:
    """Whether a path names a store (`s3://...`) and not a folder."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """A path below a folder, of a store or of a disk; empty names are skipped."""
    return "/".join([folder.rstrip("/"), *filter(None, names)])


def s3_client() -> Any:
    """This process' S3 client, with time-outs that a person would wait for.

    Honours AWS_ENDPOINT_URL, and S3_ENDPOINT_URL before it, as mosaicml-streaming does. Threads may share it; a fork
    may not, because both processes would read from one connection.
    """
    return _s3_client(os.getpid(), *(os.environ.get(name) for name in _SETTINGS))


@functools.lru_cache(maxsize=4)
def _s3_client(_process: int, *_settings: str | None) -> Any:
    """A client for one process and one set of settings (making one takes a fifth of a second)."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    return boto3.session.Session().client("s3", config=config, endpoint_url=os.environ.get("S3_ENDPOINT_URL"))


def _get_object(remote: str) -> Any:
    """An S3 object's open body."""
    place = urllib.parse.urlparse(remote)
    payers = [name.strip() for name in os.environ.get("MOSAICML_STREAMING_AWS_REQUESTER_PAYS", "").split(",")]
    extra = {"RequestPayer": "requester"} if place.netloc in payers else {}
    return s3_client().get_object(Bucket=place.netloc, Key=place.path.lstrip("/"), **extra)["Body"]


def download(remote: str, local: Path) -> None:
    """Copy one file into the cache, whole or not at all.

    S3 and folders are read here; other stores (gs://, oci://, ...) by mosaicml-streaming's own downloaders.

    Args:
        remote: where the file is.
        local: what it becomes.

    Raises:
        DataError: it could not be fetched; the sentence says why.
    """
    part = local.with_name(f"{local.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        if remote.startswith("s3://"):
            with part.open("wb") as out:
                for chunk in _get_object(remote).iter_chunks(_CHUNK):
                    out.write(chunk)
        elif is_remote(remote):
            from streaming.base.storage.download import CloudDownloader

            CloudDownloader.direct_download(remote, str(part))
        else:
            shutil.copyfile(remote, part)
        part.replace(local)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            what = f"{remote}: cannot be copied to {local.parent} ({error.strerror})"
            raise DataError(f"{what}. Name another folder.") from error
        raise fault(error, remote) from error
    finally:
        if part.is_file():
            part.unlink()


def fault(error: BaseException, remote: str) -> DataError:
    """Why `remote` could not be fetched, in a sentence with what to try next."""
    kind = type(error).__name__
    bucket = urllib.parse.urlparse(remote).netloc
    endpoint = os.environ.get("S3_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"
    if kind in _NO_CREDENTIALS:
        return StoreOutOfReach(
            f"{remote}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or run `aws configure`."
        )
    if kind in _UNREACHABLE:
        return StoreOutOfReach(
            f"{remote}: {endpoint} cannot be reached ({kind}). Check the network, AWS_ENDPOINT_URL and S3_ENDPOINT_URL."
        )
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return StoreOutOfReach(f"{remote}: {endpoint} has no bucket {bucket!r}. Check its name: aws s3 ls")
    if code in _ABSENT or isinstance(error, FileNotFoundError):
        return DataError(f"{remote}: is missing. Check the path, and that all of the data set was uploaded or copied.")
    if code in _DENIED:
        return StoreOutOfReach(
            f"{remote}: access denied ({code}). These credentials may not read the bucket {bucket!r}, "
            "or the object is missing and they may not list it."
        )
    return DataError(f"{remote}: cannot be read ({kind}: {str(error).splitlines()[0] if str(error) else code}).")
