"""S3 addresses: a key may hold any character, and reading, writing, listing and deleting take it literally."""

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.addresses import cut_off, split_s3, without_credentials
from common.errors import DataError
from common.folders import S3Folder, open_folder, split
from config import ConfigError, load
from loaders.transport.preload import copy
from loaders.transport.remote import download, join
from tests.image_files import make_imagefolder
from tests.s3 import s3_client, upload
from tests.tools.conversions import convert, files_of, images_of
from tools.convert.to_mds import open_destination
from training.checkpoint_files import check_writable

KEYS = st.text(st.sampled_from(string.printable.strip() + " é"), min_size=1)


@given(KEYS)
def test_keys_are_kept_as_given(key: str) -> None:
    address, prefix = f"s3://key:secret@bucket/{key}", key.removesuffix("/") + "/"
    assert split_s3(address) == ("bucket", key)
    assert without_credentials(address) == f"s3://bucket/{key}"
    assert in_folder(address) == ("bucket", prefix)
    assert split_s3(join(address, "train", "x")) == ("bucket", f"{prefix}train/x")
    assert split_s3(f"{open_destination(address)}/x") == ("bucket", f"{prefix}x")


def in_folder(address: str) -> tuple[str, str]:
    """Return the bucket of a folder, and the prefix of its keys."""
    folder = S3Folder(address)
    return folder.bucket, folder.prefix


@pytest.mark.parametrize("address", ["gs://b/run#1", "oci://b@n/a?x/y", "GS://b/#", "azure://b/x?y#z"])
def test_signs_in_addresses_of_other_stores_are_rejected(address: str, tmp_path: Path) -> None:
    at = min(address.index(sign) for sign in "#?" if sign in address)
    problem = f"{address[:at]} is followed by {address[at]!r}, which only a key in S3 may contain; rename the folder"
    with pytest.raises(DataError, match=re.escape(problem)):
        download(join(address, "index.json"), tmp_path / "index.json")
    words = ["yamls/digits.yaml", f"train_dataset.path={address}", "train_dataset.is_streaming=true"]
    with pytest.raises(ConfigError, match=re.escape(f"train_dataset.path: {problem}")):
        load([*words, "train_dataset.local=cache", "dry_run=true"])
    assert not any(map(cut_off, ("gs://b/run", "s3://b/run#1?x", "S3://b/#", "/data/run#1", "data?x://y")))


def test_the_address_of_a_bucket() -> None:
    assert in_folder("s3://bucket") == in_folder("s3://bucket/") == ("bucket", "")
    assert in_folder("S3://bucket//") == ("bucket", "/")


def test_objects_with_other_keys_are_left_alone(s3_server: str, tmp_path: Path) -> None:
    client = s3_client()
    client.create_bucket(Bucket="mine")
    others = ["precious", "precious#1", "precious#1?x=y", "precious#1?x=y&z/val", "lead/precious"]
    for key in others:
        client.put_object(Bucket="mine", Key=key, Body=key.encode())
    source = make_imagefolder(tmp_path / "source", per_class=2)
    folder = "precious#1?x=y&z//[a] %20;é"
    address = f"s3://mine/{folder}"
    assert convert(source, address, workers=1) == 0
    saved = open_folder(f"{address}/saved")
    check_writable(saved)
    (tmp_path / "new").write_text("weights")
    saved.put(tmp_path / "new", "ep1.pt")
    again, name = split(f"{address}/saved/ep1.pt")
    assert again.fetch(name, tmp_path).read_text() == "weights" and again.names() == [name]
    again.delete(name)
    keys = {item["Key"] for item in client.list_objects_v2(Bucket="mine")["Contents"]}
    made = {"classes.json", *(f"{at}/{name}" for at in ("train", "val") for name in ("index.json", "shard.00000.mds"))}
    assert keys == {*others, *(f"{folder}/{name}" for name in made)}
    assert all(client.get_object(Bucket="mine", Key=key)["Body"].read() == key.encode() for key in others)
    assert len(images_of(address, "val", tmp_path / "cache")) == 6
    assert copy(address, tmp_path / "copy").copied_files == len(made)


def test_a_leading_slash_is_part_of_a_key(s3_server: str, tmp_path: Path) -> None:
    source = make_imagefolder(tmp_path / "source", per_class=1)
    upload(source, "mine", "/lead")
    assert copy("s3://mine//lead", tmp_path / "copy", shown=False).copied_files == len(files_of(source))
