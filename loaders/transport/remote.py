"""Fetching one small or large file from where a data set is stored, and saying in a sentence why it did not work."""

import contextlib
import errno
import functools
import os
import random
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.addresses import cut_off, is_s3, split_s3
from common.errors import DataError
from common.suggest import address_meant

# A store that never answers is given up after PATIENCE + CONNECT_TIMEOUT + READ_TIMEOUT = 41 seconds at most; one that
# fails every twentieth request fails four in a row, and thereby a run, once in 160,000 files.
CONNECT_TIMEOUT = 3.0  # seconds, each attempt
READ_TIMEOUT = 8.0  # seconds without a byte; a slow download may take as long as it likes
PATIENCE = 30.0  # seconds without getting any further, after which a file is not asked for again
FIRST_PATIENCE = 8.0  # the same while a store has never been reached: its address may well be wrong
ATTEMPTS = 3  # of requests other than downloads
_PAUSES = (0.2, 4.0)  # seconds, the first and the longest between two attempts
_CHUNK = 1 << 17  # bytes; small, so that others see a slow download grow
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SETTINGS = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_PROFILE", *_SECRETS)
_reached: set[str] = set()  # endpoints that have answered this process, or the one that it was forked from
Check = Callable[[Path], None]
_JITTER = random.Random()  # not the global one, whose draws belong to the training


class StoreOutOfReach(DataError):
    """No file of the store can be read, whichever it is."""


class Damaged(Exception):
    """What arrived is not what was stored; the message says how that shows."""


_UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "ConnectionError"}
_BROKEN = {"ConnectionClosedError", "IncompleteReadError", "ResponseStreamingError", "ReadTimeoutError"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
}
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ABSENT = {"404", "NoSuchKey"}
_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(?<!s3)(://[^\s?]*)[?]\S*", re.IGNORECASE)  # in S3, what follows a ? is part of the key


def is_remote(path: str) -> bool:
    """Whether a path names a store (`s3://...`) and not a folder.

    Raises:
        DataError: it is an address with a slash too few.
    """
    if meant := address_meant(path):
        raise DataError(f"{path}: is neither an address nor a folder; did you mean {meant}?")
    return "://" in path


def join(folder: str, *names: str) -> str:
    """A path below a folder, of a store or of a disk; empty names are skipped."""
    return "/".join([folder.removesuffix("/"), *filter(None, names)])


def s3_client(attempts: int | None = None) -> Any:
    """This process' S3 client, with time-outs that a person would wait for.

    Honours AWS_ENDPOINT_URL, and S3_ENDPOINT_URL before it, as mosaicml-streaming does. Threads may share it; a fork
    may not, because both processes would read from one connection.

    Args:
        attempts: how often a request is made before it fails; ATTEMPTS if None.
    """
    timeouts = (CONNECT_TIMEOUT, READ_TIMEOUT)
    return _s3_client(os.getpid(), attempts or ATTEMPTS, timeouts, *(os.environ.get(name) for name in _SETTINGS))


@functools.lru_cache(maxsize=4)
def _s3_client(_process: int, attempts: int, timeouts: tuple[float, float], *_settings: str | None) -> Any:
    """A client for one process and one set of settings (making one takes a fifth of a second)."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=timeouts[0],
        read_timeout=timeouts[1],
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    return boto3.session.Session().client("s3", config=config, endpoint_url=os.environ.get("S3_ENDPOINT_URL"))


def part_of(path: Path) -> Path:
    """A name of this caller's own, beside `path`, for what is still being written; remains of a killed run show."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")


def download(
    remote: str, local: Path, check: Check | None = None, size: int | None = None, part: Path | None = None
) -> None:
    """Copy one file into the cache, whole or not at all; under its own name it is never seen half-written.

    S3 and folders are read here; other stores (gs://, oci://, ...) by mosaicml-streaming's own downloaders. S3 is asked
    again while its faults may pass; a damaged file is fetched once more from anywhere.

    Args:
        remote: where the file is.
        local: what it becomes.
        check: raises Damaged if the file that it is given is not the right one; may unpack it.
        size: in bytes, where it is known: of S3 and folders no more is read.
        part: the name to write under until then; one of this call's own if None.

    Raises:
        DataError: it could not be fetched; the sentence says why.
    """
    part = part or part_of(local)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            _copy(remote, part, check, size)
        except Damaged:
            _copy(remote, part, check, size)
        part.replace(local)
    except DataError:
        raise
    except Damaged as error:
        raise DataError(f"{without_credentials(remote)}: is damaged ({error}). Copy or upload it again.") from error
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise unwritable(error, local.parent, remote) from error
        raise fault(error, remote) from error
    except Exception as error:
        raise fault(error, remote) from error
    finally:
        if part.is_file():
            part.unlink()


def _copy(remote: str, part: Path, check: Check | None, size: int | None) -> None:
    """Fetch a file under a name for the time being, and check it."""
    if is_s3(remote):
        with part.open("wb") as out:
            _copy_object(remote, out, size)
    elif is_remote(remote):
        if problem := cut_off(remote):
            raise DataError(problem)
        from streaming.base.storage.download import CloudDownloader

        part.unlink(missing_ok=True)  # what is there, if damaged, would be taken for the download
        CloudDownloader.direct_download(remote, str(part))
    else:
        with part.open("wb") as out:
            for chunk in _within(size, _file(remote)):
                out.write(chunk)
    if check:
        check(part)


def _copy_object(remote: str, out: BinaryIO, size: int | None) -> None:
    """Copy an S3 object, from its start again after a fault that may pass, while that gets further now and then."""
    furthest, since, pause = 0, time.monotonic(), _PAUSES[0]
    while True:
        out.seek(0)
        out.truncate()
        try:
            for chunk in _within(size, _object(remote)):
                out.write(chunk)
                if out.tell() > furthest:
                    furthest, since = out.tell(), time.monotonic()
            return
        except Exception as error:
            if type(error).__name__ == "FlexibleChecksumError":
                raise Damaged("its checksum is not the one that the store sent") from error
            if not may_pass(error) or time.monotonic() + pause > since + _patience(error):
                raise
        time.sleep(pause * _JITTER.uniform(0.5, 1.0))
        pause = min(2 * pause, _PAUSES[1])


def _within(size: int | None, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a file, until they are more than there should be."""
    seen = 0
    for piece in pieces:
        seen += len(piece)
        if size is not None and seen > size:
            raise Damaged(f"more than {size} bytes")
        yield piece


def _patience(error: Exception) -> float:
    """For how many seconds a fault is worth another attempt."""
    if type(error).__name__ not in _UNREACHABLE:
        _reached.add(_endpoint())
    return PATIENCE if _endpoint() in _reached else FIRST_PATIENCE


def _object(remote: str) -> Iterator[bytes]:
    """An S3 object in pieces."""
    bucket, key = split_s3(remote)
    payers = [name.strip() for name in os.environ.get("MOSAICML_STREAMING_AWS_REQUESTER_PAYS", "").split(",")]
    extra = {"RequestPayer": "requester"} if bucket in payers else {}
    answer = s3_client(attempts=1).get_object(Bucket=bucket, Key=key, **extra)
    _reached.add(_endpoint())
    with contextlib.closing(answer["Body"]) as body:
        yield from body.iter_chunks(_CHUNK)


def _file(path: str) -> Iterator[bytes]:
    """A file of a disk in pieces; its faults are told from those of the file that it is copied to."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileNotFoundError(path)  # reading a pipe or a device would never end
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise fault(error, path) from error


def may_pass(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    known = type(error).__name__ in _UNREACHABLE | _BROKEN or isinstance(error, ConnectionError | TimeoutError)
    return known or _status(error) >= 500 or _status(error) == 429


def _status(error: BaseException) -> int:
    """The HTTP status of an S3 fault; 0 for other exceptions."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: BaseException) -> dict[str, Any]:
    """What S3 said, empty where it said nothing."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}


def unwritable(error: OSError, folder: Path | str, what: str) -> DataError:
    """Why `what` could not be written into a folder, in a sentence with what to try next."""
    return DataError(
        f"{without_credentials(what)}: cannot be copied to {folder} ({error.strerror}). "
        "Free some space there if it is full, or set another cache folder: train_dataset.local=FOLDER "
        "eval_dataset.local=FOLDER."
    )


def fault(error: BaseException, remote: str) -> DataError:
    """Why `remote` could not be fetched, in a sentence with what to try next."""
    kind = type(error).__name__
    remote = without_credentials(remote)
    bucket, _ = split_s3(remote)
    code = str(_answer(error).get("Error", {}).get("Code", ""))
    endpoint = without_credentials(_endpoint())
    if kind in _NO_CREDENTIALS:
        return StoreOutOfReach(
            f"{remote}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or run `aws configure`."
        )
    if kind in _UNREACHABLE:
        what = f"{endpoint} cannot be reached ({kind}). Check the network, AWS_ENDPOINT_URL and S3_ENDPOINT_URL."
        return StoreOutOfReach(f"{remote}: {what}")
    if may_pass(error):
        what = {"ReadTimeoutError": "does not answer"}.get(kind, f"keeps failing ({code or kind})")
        return StoreOutOfReach(f"{remote}: {endpoint} {what}. Start the run again when it works.")
    if kind == "SSLError":
        what = f"{endpoint} has a certificate that is not trusted here. Set AWS_CA_BUNDLE to its authority's file."
        return StoreOutOfReach(f"{remote}: {what}")
    if code == "NoSuchBucket":
        return StoreOutOfReach(f"{remote}: {endpoint} has no bucket {bucket!r}. Check its name, and S3_ENDPOINT_URL.")
    if code in _ABSENT or type(error) is FileNotFoundError:  # Hugging Face's own kind says that it is out of reach
        return DataError(f"{remote}: is missing. Check the path, and that all of the data set was uploaded or copied.")
    if code in _REFUSED:
        return StoreOutOfReach(
            f"{remote}: {endpoint} refuses the credentials ({code}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN, or the profile that they come from."
        )
    if code == "403" or _status(error) == 403:
        return StoreOutOfReach(
            f"{remote}: access denied ({code}). These credentials may not use the bucket {bucket!r}, "
            "or the object is missing and they may not list it."
        )
    message = without_credentials(str(error)).splitlines() or [code]
    return DataError(f"{remote}: cannot be read ({kind}: {message[0]}).")


def _endpoint() -> str:
    """The address of the store, for messages."""
    return os.environ.get("S3_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"


def without_credentials(text: str) -> str:
    """A path, or a sentence with URLs in it, without their users, passwords and signatures."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
