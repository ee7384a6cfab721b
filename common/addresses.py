"""Addresses in S3: their bucket and key. Other stores' addresses are read by mosaicml-streaming's own parsers."""

from __future__ import annotations

import os
import re

_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(?<!s3)(://[^\s?]*)[?]\S*", re.IGNORECASE)  # in S3, what follows a ? is part of the key


def is_s3(path: str) -> bool:
    """Return whether a path is an address in S3."""
    return path[:5].lower() == "s3://"


def is_in_place(path: str, local: str) -> bool:
    """Return whether shards at `path` need no copy, because it is the cache folder itself."""
    return "://" not in path and os.path.realpath(path) == os.path.realpath(local)


def cut_off(path: str) -> str | None:
    """Return why an address in another store may have no `#` or `?`: mosaicml-streaming would end it there."""
    match = re.match(r"(?!s3://)([a-z0-9+-]+://[^#?]*)([#?])", path, re.IGNORECASE)
    if match is None:
        return None
    return f"{match[1]} is followed by {match[2]!r}, which only a key in S3 may contain; rename the folder"


def split_s3(address: str) -> tuple[str, str]:
    """Return the bucket and the key of s3://bucket/key, without a user and password before the bucket.

    A key is kept as it is: `#`, `?`, `%20` and doubled slashes belong to it, as they do for the `aws` command.
    """
    bucket, _, key = address[5:].partition("/")
    return bucket.rpartition("@")[2], key


def without_credentials(text: str) -> str:
    """Remove users, passwords and signatures from the URLs in a path or a sentence."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
