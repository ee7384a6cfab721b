"""Error messages for the faults of stores: what failed, where, and what to try next."""

from __future__ import annotations

import os
from typing import Any

from common.addresses import split_s3, without_credentials
from common.errors import DataError

UNREACHABLE = {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "ConnectionError"}
_BROKEN = {"ConnectionClosedError", "IncompleteReadError", "ResponseStreamingError", "ReadTimeoutError"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError"}
_REJECTED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ABSENT = {"404", "NoSuchKey"}


class StoreOutOfReach(DataError):
    """No file of the store can be read or written, whichever it is."""


class Damaged(Exception):
    """What arrived differs from what was stored; the message says how that shows."""


def endpoint() -> str:
    """Address of the S3 store, for messages."""
    return os.environ.get("S3_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    known = type(error).__name__ in UNREACHABLE | _BROKEN or isinstance(error, ConnectionError | TimeoutError)
    return known or _status(error) >= 500 or _status(error) == 429


def fault(error: BaseException, address: str) -> DataError:
    """Return the error message for a request about `address`, which is shown without credentials."""
    kind = type(error).__name__
    address = without_credentials(address)
    bucket, _ = split_s3(address)
    code = str(_answer(error).get("Error", {}).get("Code", ""))
    store = without_credentials(endpoint())
    if kind in _NO_CREDENTIALS:
        return StoreOutOfReach(
            f"{address}: no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or run `aws configure`."
        )
    if kind in UNREACHABLE:
        what = f"{store} cannot be reached ({kind}). Check the network, AWS_ENDPOINT_URL and S3_ENDPOINT_URL."
        return StoreOutOfReach(f"{address}: {what}")
    if may_pass(error):
        what = {"ReadTimeoutError": "does not answer"}.get(kind, f"keeps failing ({code or kind})")
        return StoreOutOfReach(f"{address}: {store} {what}. Start the run again when it works.")
    if kind == "SSLError":
        what = f"{store} has a certificate that is not trusted here. Set AWS_CA_BUNDLE to its authority's file."
        return StoreOutOfReach(f"{address}: {what}")
    if code == "NoSuchBucket":
        return StoreOutOfReach(f"{address}: {store} has no bucket {bucket!r}. Check its name, and S3_ENDPOINT_URL.")
    if _status(error) == 412:
        return DataError(f"{address}: has been replaced since this run started. Start the run again.")
    if code in _ABSENT or type(error) is FileNotFoundError:  # Hugging Face's own subclass means "out of reach"
        return DataError(f"{address}: is missing. Check the path, and that everything was uploaded or copied.")
    if code in _REJECTED:
        return StoreOutOfReach(
            f"{address}: {store} rejects the credentials ({code}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN, or the profile that they come from."
        )
    if code == "403" or _status(error) == 403:
        return StoreOutOfReach(
            f"{address}: access denied ({code}). The credentials do not allow this in the bucket {bucket!r}, "
            "or the object is missing and they do not allow listing it."
        )
    if isinstance(error, Damaged):
        return DataError(f"{address}: is damaged ({error}). Copy or upload it again.")
    message = without_credentials(str(error)).splitlines() or [code]
    return DataError(f"{address}: cannot be read or written ({kind}: {message[0]}).")


def _answer(error: BaseException) -> dict[str, Any]:
    """The store's answer; empty where there was none."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}


def _status(error: BaseException) -> int:
    """The HTTP status of a store's fault; 0 for other exceptions."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
