"""Addresses in S3: the bucket and the key that they name, read in one way by all that read, write, list or delete."""

from __future__ import annotations


def is_s3(path: str) -> bool:
    """Whether a path is an address in S3."""
    return path[:5].lower() == "s3://"


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
