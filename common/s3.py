"""S3 requests: one client per process, its time-outs, and new attempts while a fault may pass."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from common.addresses import split_s3
from common.store_faults import UNREACHABLE, Damaged, endpoint, fault, may_pass

# A store that never answers is given up after PATIENCE + CONNECT_TIMEOUT + READ_TIMEOUT = 41 s of a download at most,
# and after 2 * ATTEMPTS * ANSWER_TIMEOUT = 90 s of an upload, because a failed upload is also aborted. One that fails
# every twentieth request fails four in a row, and thereby a run, once in 160,000 files.
CONNECT_TIMEOUT = 3.0  # seconds, each attempt
READ_TIMEOUT = 8.0  # seconds without a byte of a download; a slow one may take as long as it likes
ANSWER_TIMEOUT = 15.0  # seconds without an answer to another request: joining the parts of an upload takes a while
ATTEMPTS = 3  # of the client, at requests other than downloads
PATIENCE = 30.0  # seconds without progress for which a fault is worth another attempt
FIRST_PATIENCE = 8.0  # the same before the store has ever answered: its address may be wrong
_PAUSES = (0.2, 4.0)  # seconds, the first and the longest between two attempts
_CHUNK = 1 << 17  # bytes; small, so that others see a slow download grow
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SETTINGS = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_PROFILE", *_SECRETS)
_JITTER = random.Random()  # not the global generator, whose draws belong to the training
_reached: set[str] = set()  # endpoints that have answered this process, or the one that it was forked from


def client(download: bool = False) -> Any:
    """Return this process's client, for downloads or for other requests.

    Uses S3_ENDPOINT_URL before AWS_ENDPOINT_URL, as mosaicml-streaming does. Threads may share a client; a fork may
    not, because both processes would read from one connection.
    """
    limits = (CONNECT_TIMEOUT, READ_TIMEOUT, 1) if download else (CONNECT_TIMEOUT, ANSWER_TIMEOUT, ATTEMPTS)
    return _client(os.getpid(), *limits, *(os.environ.get(name) for name in _SETTINGS))


@functools.lru_cache(maxsize=4)  # making one takes a fifth of a second
def _client(_process: int, connect: float, read: float, attempts: int, *_settings: str | None) -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(connect_timeout=connect, read_timeout=read, retries=retries)
    return boto3.session.Session().client("s3", config=config, endpoint_url=os.environ.get("S3_ENDPOINT_URL"))


def call(request: Callable[..., Any], address: str, **arguments: object) -> Any:
    """Make a request, a method of `client()`, again while its fault may pass; then a DataError about `address`."""
    from boto3.exceptions import Boto3Error

    since, pause = time.monotonic(), _PAUSES[0]
    while True:
        draws = random.getstate()  # botocore's pauses draw from the generator that belongs to the training
        try:
            answer = request(**arguments)
            _reached.add(endpoint())
            return answer
        except Exception as error:  # an answer that is not S3's makes boto3 raise anything
            cause = error.__context__ if isinstance(error, Boto3Error) and error.__context__ else error
            if not _wait(cause, since, pause):
                raise fault(cause, address) from error
        finally:
            random.setstate(draws)
        pause = min(2 * pause, _PAUSES[1])


def copy_object(address: str, out: BinaryIO, size: int | None = None, offset: int | None = None, tag: str = "") -> None:
    """Download an object, or `size` bytes of it from `offset`; `tag` is the ETag that it must have, if given.

    After a fault that may pass, the download starts again, as long as attempts get further.

    Raises:
        Damaged: the object has more than `size` bytes, or another checksum than its own.
        Exception: whatever botocore raises, for `fault`.
    """
    options = {} if offset is None or size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
    options |= {"IfMatch": tag} if tag else {}
    furthest, since, pause = 0, time.monotonic(), _PAUSES[0]
    while True:
        out.seek(0)
        out.truncate()
        try:
            for chunk in within(size, _object(address, **options)):
                out.write(chunk)
                if out.tell() > furthest:
                    furthest, since = out.tell(), time.monotonic()
            return
        except Exception as error:
            if type(error).__name__ == "FlexibleChecksumError":
                raise Damaged("its checksum is not the one that the store sent") from error
            if not _wait(error, since, pause):
                raise
        pause = min(2 * pause, _PAUSES[1])


def size_of(address: str) -> int:
    """Return the bytes of an object; raises a DataError if the store does not say."""
    bucket, key = split_s3(address)
    return int(call(client().head_object, address, Bucket=bucket, Key=key)["ContentLength"])


def read_range(address: str, offset: int, size: int) -> bytes:
    """Return `size` bytes of an object from `offset`; raises as `copy_object`."""
    content = io.BytesIO()
    copy_object(address, content, size, offset)
    return content.getvalue()


def within(size: int | None, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file; raises Damaged if they are more than `size` bytes."""
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if size is not None and seen > size:
            raise Damaged(f"more than {size} bytes")
        yield chunk


def _object(address: str, **options: str) -> Iterator[bytes]:
    """Yield the chunks of an object."""
    bucket, key = split_s3(address)
    payers = [name.strip() for name in os.environ.get("MOSAICML_STREAMING_AWS_REQUESTER_PAYS", "").split(",")]
    extra = {"RequestPayer": "requester"} if bucket in payers else {}
    answer = client(download=True).get_object(Bucket=bucket, Key=key, **extra, **options)
    _reached.add(endpoint())
    with contextlib.closing(answer["Body"]) as body:
        yield from body.iter_chunks(_CHUNK)


def _wait(error: BaseException, since: float, pause: float) -> bool:
    """Pause before another attempt; False if the fault stays, or nothing has come `since` for too long."""
    if not may_pass(error):
        return False
    if type(error).__name__ not in UNREACHABLE:
        _reached.add(endpoint())
    if time.monotonic() + pause > since + (PATIENCE if endpoint() in _reached else FIRST_PATIENCE):
        return False
    time.sleep(pause * _JITTER.uniform(0.5, 1.0))
    return True
