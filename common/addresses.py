"""Addresses in S3: the bucket and the key that they name, read in one way by all that read, write, list or delete.

Other stores' addresses are read by mosaicml-streaming's own parsers."""

from __future__ import annotations

import os
import re

_USER = re.compile(r"(?<=://)[^/\s]*@")
_QUERY = re.compile(r"(?<!s3)(://[^\s?]*)[?]\S*", re.IGNORECASE)  # in S3, what follows a ? is part of the key


def is_s3(path: str) -> bool:
    """Whether a path is an address in S3."""
    return path[:5].lower() == "s3://"


def is_in_place(path: str, local: str) -> bool:
    """Whether shards at `path` need no copy: it is the cache folder itself."""
    return "://" not in path and os.path.realpath(path) == os.path.realpath(local)


def cut_off(path: str) -> str | None:
    """What is wrong with an address in another store that has a `#` or `?`: mosaicml-streaming would end it there."""
    found = re.match(r"(?!s3://)([a-z0-9+-]+://[^#?]*)([#?])", path, re.IGNORECASE)
    if found is None:
        return None
    return f"{found[1]} goes on with {found[2]!r}, which only a key in S3 may hold; rename the folder"


def split_s3(address: str) -> tuple[str, str]:
    """The bucket and the key of s3://bucket/key.

    A key is any text, and kept as it is: `#`, `?`, `%20` and doubled slashes belong to it, as they do for the `aws`
    command. A user and password before the bucket mean nothing to S3, and are dropped.
    """
    bucket, _, key = address[5:].partition("/")
    return bucket.rpartition("@")[2], key


def split_s3_folder(address: str) -> tuple[str, str]:
    """The bucket of a folder's address, and the prefix of all keys in the folder: empty, or with a slash at its end."""
    return split_s3(address.removesuffix("/") + "/")


def without_credentials(text: str) -> str:
    """Remove users, passwords and signatures from the URLs in a path or a sentence."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
