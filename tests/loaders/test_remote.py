"""Remote files: sizes beyond the index's, unusual files, and errors of stores."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from common import s3
from common.errors import DataError
from common.store_faults import Damaged, fault
from data import build_imagenet_dataspec
from loaders.storage.inspection_jobs import ShardJob
from loaders.transport import remote
from tests.s3 import s3_client, upload, use_endpoint
from tools.convert import sources
from tools.convert.to_mds import open_destination


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the chunks read from S3."""
    pieces: list[int] = []
    stock = s3._object

    def counted(address: str) -> Iterator[bytes]:
        for piece in stock(address):
            pieces.append(len(piece))
            yield piece

    monkeypatch.setattr(s3, "_object", counted)
    return pieces


def test_reading_stops_at_the_expected_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endless = iter(lambda: b"x" * 100, None)
    monkeypatch.setattr(s3, "_object", lambda _: endless)
    with pytest.raises(DataError, match=r"s3://b/k: is damaged \(more than 1000 bytes\)"):
        remote.download("s3://b/k", tmp_path / "k", size=1000)
    assert not list(tmp_path.iterdir())
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    remote.download(str(source), tmp_path / "copy", size=1000)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(DataError, match="more than 999 bytes"):
        remote.download(str(source), tmp_path / "other", size=999)


@pytest.mark.parametrize("reader", ["training", "verify", "convert"])
def test_a_shard_that_is_too_large(reader: str, s3_server: str, shards: Path, tmp_path: Path, read: list[int]) -> None:
    place, cache = upload(shards, "images", "set"), tmp_path / "cache"
    index = (shards / "val/index.json").read_bytes()
    entry = json.loads(index)["shards"][0]
    name = (entry.get("zip_data") or entry["raw_data"])["basename"]
    s3_client().upload_fileobj(io.BytesIO(bytes(3_000_000)), "images", f"set/val/{name}")
    (cache / "val").mkdir(parents=True)
    if reader != "training":
        (cache / "val/index.json").write_bytes(index)
    with pytest.raises(DataError, match=rf"val/{name}: is .*more than \d+ bytes"):
        if reader == "training":
            spec = build_imagenet_dataspec(place, True, 2, local=str(cache), is_train=False, num_workers=0)
            read.clear()
            list(spec.dataloader)
        elif reader == "verify":
            list(ShardJob(0, place, str(cache), "val", entry).samples())
        else:
            sources._shard(place, str(cache), "val", 0)
    assert sum(read) < 1_000_000


@pytest.mark.parametrize("name", ["pipe", "device", "folder"])
def test_pipes_devices_and_folders_are_rejected(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=f"{name}: is missing"):
        remote.download(str(tmp_path / name), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_unreachable_file_is_not_reported_missing() -> None:
    """Hugging Face raises this kind of FileNotFoundError when it has no connection."""
    error = LocalEntryNotFoundError("check your connection and try again")
    assert str(fault(error, "hf://datasets/a/b")) == (
        "hf://datasets/a/b: cannot be read or written (LocalEntryNotFoundError: check your connection and try again)."
    )
    assert "is missing" in str(fault(FileNotFoundError("no such object"), "gs://b/x"))


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import SSLError

    use_endpoint(monkeypatch, "https://store")
    error = SSLError(endpoint_url="https://store/b", error="self-signed certificate")
    said = "s3://b/x: https://store has a certificate that is not trusted here. Set AWS_CA_BUNDLE to"
    assert str(fault(error, "s3://b/x")).startswith(said)


@pytest.mark.parametrize("look", [remote.is_remote, open_destination])
def test_a_home_folder_in_quotes(look: Callable, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes keep the shell from expanding the tilde."""
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(DataError, match=r"^~/mds: is neither an address nor a folder; did you mean /home/me/mds\?"):
        look("~/mds")
    (workdir / "~").mkdir()
    look("~/mds")


def test_a_damaged_file_is_fetched_once_more_from_any_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streaming's downloaders treat an existing file as fetched."""
    from streaming.base.storage.download import CloudDownloader

    contents = [b"damaged", b"whole"]

    def direct_download(_remote: str, local: str) -> None:
        if not Path(local).exists():
            Path(local).write_bytes(contents.pop(0))

    def check(path: Path) -> None:
        if path.read_bytes() != b"whole":
            raise Damaged("it is not whole")

    monkeypatch.setattr(CloudDownloader, "direct_download", direct_download)
    remote.download("gs://bucket/file", tmp_path / "file", check)
    assert (tmp_path / "file").read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
