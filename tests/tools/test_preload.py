"""Copies to a local disk: complete or marked incomplete, and only missing files are copied again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from common import whole_files
from common.addresses import without_credentials
from common.errors import DataError
from loaders.transport.preload import copy
from loaders.transport.preloading.source_files import list_files
from tests.image_files import make_imagefolder, make_shards
from tests.s3 import s3_client, upload, use_endpoint
from tests.tools.copies import is_complete, preload, tree
from tools.preload.__main__ import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a list of classes and another file; tests do not write to it."""
    root = make_imagefolder(tmp_path_factory.mktemp("source"), per_class=5)
    (root / "classes.json").write_text('["cat", "dog", "person"]')
    (root / "train.beton").write_bytes(os.urandom(3 << 20))
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in compressed shards, several per split; tests do not write to it."""
    root = make_shards(folder, tmp_path_factory.mktemp("shards"), size_limit=8_000, compression="zstd:3")
    shutil.copy(folder / "classes.json", root)
    return root


def manifest(copied: Path) -> dict:
    return json.loads((copied / ".preload/manifest.json").read_text())


def test_a_copy_is_made_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run([str(folder), str(tmp_path / "copy")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "32" in said and "train_dataset.preload=" in said and "eval_dataset.preload=" in said
    assert tree(tmp_path / "copy") == tree(folder) and is_complete(tmp_path / "copy", str(folder))
    assert not list((tmp_path / "copy").rglob("*.tmp")) and not (tmp_path / "copy/.preload/parts").exists()
    assert run([str(folder), str(tmp_path / "copy")]) == 0
    assert "was complete already" in " ".join(capsys.readouterr().out.split())


def test_splits_can_be_copied_separately(folder: Path, tmp_path: Path) -> None:
    destination = preload(str(folder), tmp_path / "copy", ["train"])
    assert not (destination / "val").exists() and (destination / "train.beton").is_file()
    assert is_complete(destination, str(folder), ["train"])
    assert not is_complete(destination, str(folder), ["val"]) and not is_complete(destination, str(folder))
    assert copy(str(folder), destination, ["val"]).copied_files == 15
    assert is_complete(destination, str(folder), ["train", "val"])
    assert copy(str(folder), destination).copied_files == 0 and is_complete(destination, str(folder))
    with pytest.raises(DataError, match="has no test/"):
        preload(str(folder), tmp_path / "other", ["test"])


def test_too_little_space(folder: Path, tmp_path: Path) -> None:
    """Both numbers are reported and nothing is copied; a sparse file counts at its full size."""
    source = shutil.copytree(folder, tmp_path / "set")
    size = 2 * shutil.disk_usage(tmp_path).free
    with (source / "train/huge.beton").open("wb") as file:
        file.truncate(size)
    with pytest.raises(DataError, match=r"\d{9,} bytes\) are needed, but .* are free.*--split train") as caught:
        preload(str(source), tmp_path / "copy")
    needed = int(str(caught.value).split("(")[1].split()[0])
    assert size < needed < size + (32 * 4096) + (4 << 20)
    assert not tree(tmp_path / "copy") and not is_complete(tmp_path / "copy", str(source))


def test_space_to_decompress(shards: Path, tmp_path: Path) -> None:
    """Compressed shards are decompressed next to themselves in training."""
    files = {file.name: file for file in list_files(str(shards), None)}
    index = json.loads((shards / "train/index.json").read_text())
    first = index["shards"][0]
    file = files[f"train/{first['zip_data']['basename']}"]
    assert file.unpacked == first["raw_data"]["bytes"] and file.size == first["zip_data"]["bytes"]
    assert file.recorded == f"sha1:{first['zip_data']['hashes']['sha1']}"


@pytest.mark.parametrize("fault", ["flipped", "short", "missing", "index"])
def test_damaged_shards_are_rejected(fault: str, shards: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    path = source / "val/shard.00001.mds.zstd"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if fault == "missing":
        path.unlink()
    elif fault == "index":
        path = source / "val/index.json"
        path.write_text("{")
    else:
        path.write_bytes(data if fault == "flipped" else data[:-1])
    with pytest.raises(DataError, match=rf"{path}: is (missing|damaged|malformed)"):
        preload(str(source), tmp_path / "copy")
    assert not (tmp_path / "copy/val/shard.00001.mds.zstd").exists()
    assert not is_complete(tmp_path / "copy", str(source))


def test_a_changed_source_is_noticed(shards: Path, tmp_path: Path) -> None:
    """After a new conversion, only changed files are copied, and deleted ones are removed."""
    source = shutil.copytree(shards, tmp_path / "set")
    destination = preload(str(source), tmp_path / "copy")
    index = json.loads((source / "val/index.json").read_text())
    gone = index["shards"].pop()["zip_data"]["basename"]
    (source / "val" / gone).unlink()
    (source / "val/index.json").write_text(json.dumps(index))
    assert not is_complete(destination, str(source))
    assert copy(str(source), destination).copied_files == 1
    assert tree(destination) == tree(source) and is_complete(destination, str(source))
    (destination / "train/index.json").unlink()
    assert copy(str(source), destination).copied_files == 1 and tree(destination) == tree(source)


def test_an_unreachable_source(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = shutil.copytree(folder, tmp_path / "set")
    preload(str(source), tmp_path / "copy")
    source.rename(tmp_path / "unmounted")
    preload(str(source), tmp_path / "copy")
    assert "cannot be reached; its copy" in capsys.readouterr().out
    with pytest.raises(DataError, match="no such folder"):
        preload(str(source), tmp_path / "other")


def test_rejected_destinations(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("of value")
    preload(str(folder), tmp_path / "copy")
    cases = {
        tmp_path / "mine": "holds files that no preload has written",
        folder / "copy": "overlaps with the source",
        folder.parent: "overlaps with the source",
        Path("/proc/copy"): "cannot be created",
        "s3://user:secret@bucket/copy": "s3://bucket/copy: is not a local folder",
        "s3:/bucket/copy": "did you mean s3://bucket/copy",
    }
    for destination, said in cases.items():
        with pytest.raises(DataError, match=said):
            preload(str(folder), destination)
    with pytest.raises(DataError, match=rf"holds a copy of {folder}, not of .*rm -r"):
        preload(str(tmp_path / "mine"), tmp_path / "copy")
    assert (tmp_path / "mine/letter.txt").exists() and is_complete(tmp_path / "copy", str(folder))


def test_unreadable_sources(folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder, tmp_path / "set")
    (source / "train/cat/0000.jpeg").unlink()
    (source / "train/cat/0000.jpeg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"0000\.jpeg: cannot be read"):
        preload(str(source), tmp_path / "copy")
    with pytest.raises(DataError, match="is a file"):
        preload(str(source / "classes.json"), tmp_path / "copy2")


def test_links_to_devices_and_pipes_are_skipped(folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder, tmp_path / "set")
    os.mkfifo(tmp_path / "pipe")
    (source / "train/cat/device.jpeg").symlink_to("/dev/zero")
    (source / "train/cat/pipe.jpeg").symlink_to(tmp_path / "pipe")
    assert tree(preload(str(source), tmp_path / "copy")) == tree(folder)


def test_from_s3(s3_server: str, folder: Path, shards: Path, tmp_path: Path) -> None:
    """Images and shards; a password in the address appears in neither manifest nor messages."""
    client = s3_client()
    images = upload(folder, "images", "a/set")
    assert tree(preload(images, tmp_path / "images")) == tree(folder)
    upload(shards, "shards", "set")
    source = "s3://key:secret@shards/set"
    destination = preload(source, tmp_path / "shards", ["train"])
    assert set(tree(destination)) == {name for name in tree(shards) if not name.startswith("val")}
    assert manifest(destination)["source"] == "s3://shards/set" and is_complete(destination, source, ["train"])
    stored = bytearray((shards / "val/shard.00001.mds.zstd").read_bytes())
    stored[100] ^= 1
    client.put_object(Bucket="shards", Key="set/val/shard.00001.mds.zstd", Body=bytes(stored))
    with pytest.raises(DataError, match=r"^s3://shards/set/val/shard\.00001\.mds\.zstd: is damaged"):
        preload(source, destination)
    client.delete_object(Bucket="shards", Key="set/val/index.json")
    with pytest.raises(DataError, match="no bucket 'nowhere'") as caught:
        preload("s3://key:secret@nowhere/set", tmp_path / "other")
    assert "secret" not in str(caught.value)


def test_s3_out_of_reach(s3_server: str, shards: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    source = upload(shards, "shards", "set")
    destination = preload(source, tmp_path / "copy")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert preload(source, destination) == destination and "cannot be reached" in capsys.readouterr().out
    with pytest.raises(DataError, match="no credentials"):
        preload(source, tmp_path / "other")
    use_endpoint(monkeypatch, s3_server)
    assert copy(source, destination).copied_files == 0 and "cannot be reached" not in capsys.readouterr().out


def test_stores_without_listings_use_the_indexes(s3_server: str, shards: Path, tmp_path: Path) -> None:
    """The indexes name the same files as a listing."""
    from loaders.transport.preloading.source_files import _list_indexed

    source = upload(shards, "shards", "set")
    told = {file.name: (file.size, file.recorded) for file in _list_indexed(source, ("train", "val"))}
    listed = {file.name: (file.size, file.recorded) for file in list_files(source, None)}
    assert told.pop("classes.json")[0] == listed.pop("classes.json")[0]
    assert told == listed and len(told) > 6


def test_names_outside_the_copy(s3_server: str, tmp_path: Path) -> None:
    client = s3_client()
    client.create_bucket(Bucket="bad")
    client.put_object(Bucket="bad", Key="set/train/../../../outside", Body=b"x")
    with pytest.raises(DataError, match="is not a valid file name on a disk"):
        preload("s3://bad/set", tmp_path / "copy")


def test_without_credentials() -> None:
    assert without_credentials("sftp://me:p@ss@host:22/a/b") == "sftp://host:22/a/b"
    assert without_credentials("https://host/a?sig=x&y=z: is missing. Why?") == "https://host/a is missing. Why?"
    assert without_credentials("/data/a@b?c") == "/data/a@b?c"


def test_images_that_are_added_are_noticed(folder: Path, tmp_path: Path) -> None:
    """Without an index, folders' modification times reveal new classes and images."""
    source = shutil.copytree(folder, tmp_path / "source")
    destination = tmp_path / "copy"
    copy(str(source), destination, ["train"])
    assert is_complete(destination, str(source), ["train"])
    shutil.copy(next((source / "train/cat").iterdir()), source / "train/cat/more.jpeg")
    assert not is_complete(destination, str(source), ["train"])
    assert copy(str(source), destination, ["train"]).copied_files == 1
    shutil.copytree(source / "train/cat", source / "train/zebra")
    assert copy(str(source), destination, ["train"]).copied_files == 6
    shutil.rmtree(source / "train/zebra")
    assert not is_complete(destination, str(source), ["train"])
    assert copy(str(source), destination, ["train"]).copied_files == 0
    assert tree(destination / "train") == tree(source / "train")
    assert is_complete(destination, str(source), ["train"])


def test_a_failed_update(folder: Path, tmp_path: Path) -> None:
    """The copy is not complete until the source can be read again, and then no file is copied again."""
    source, destination = shutil.copytree(folder, tmp_path / "source"), tmp_path / "copy"
    copy(str(source), destination)
    link = source / "train/cat/more.jpeg"
    link.symlink_to("nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        copy(str(source), destination)
    link.unlink()
    assert not is_complete(destination, str(source))
    assert copy(str(source), destination).copied_files == 0 and is_complete(destination, str(source))


def test_a_disk_that_fills_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # a link, because the file is removed after the fault
    monkeypatch.setattr(whole_files, "temporary_name", lambda _: tmp_path / "full")
    with pytest.raises(DataError, match=rf"^{tmp_path}/copy: its disk is full \(.* free\)"):
        copy(str(folder), tmp_path / "copy")


def test_a_mistyped_source_does_not_claim_the_destination(folder: Path, tmp_path: Path) -> None:
    """Nor does a source that is not a data set."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    for wrong, said in (("nothing", "no such folder"), ("notes", "no train/, no val/, no .beton file and no archives")):
        with pytest.raises(DataError, match=said):
            copy(str(tmp_path / wrong), tmp_path / "copy")
    assert copy(str(folder), tmp_path / "copy").copied_files
    with pytest.raises(DataError, match="holds a copy of"):
        copy(str(tmp_path / "notes"), tmp_path / "copy")
