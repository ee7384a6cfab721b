"""Data sets in other forms are read where they lie in S3: by ranges, with several requests in flight."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common import s3
from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.archives import place
from loaders.archives.forms import ReadOptions, open_copy
from loaders.class_names import imagenet
from loaders.storage.inspection import main as inspect
from tests.archives.layouts import CLASSES, converted, make_folder_tar, make_parquet, make_webdataset
from tests.archives.test_imagenet import make
from tests.s3 import s3_client, upload
from tools.verify.__main__ import run


@pytest.mark.slow
@pytest.mark.parametrize("form", ["webdataset", "parquet", "tgz", "official", "folder"])
def test_shards_are_those_of_a_copy_on_a_disk(form: str, plain: Path, s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    if form == "webdataset":
        make_webdataset(plain, tmp_path / "source/wds")
    elif form == "parquet":
        make_parquet(plain, tmp_path / "source/hf", list(imagenet()))
    elif form == "tgz":
        make_folder_tar(plain, tmp_path / "source/small.tgz", "small/", in_order=True)
    elif form == "folder":
        shutil.copytree(plain, tmp_path / "source/folder")
    else:
        (tmp_path / "source/archives").mkdir()
        make("archives", plain, tmp_path / "source/archives")
    name = next((tmp_path / "source").iterdir()).name
    address = f"{upload(tmp_path / 'source', 'photos', 'run #1?a=b%20;+')}/{name}"
    assert converted(address, tmp_path / "mds") == converted(tmp_path / "source" / name, tmp_path / "local")


@pytest.mark.slow
def test_verify_and_data_py(
    plain: Path, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    address = upload(make_webdataset(plain, tmp_path / "wds"), "photos", "wds")
    monkeypatch.chdir(tmp_path)
    assert run([address, "--workers", "1"]) == 0
    assert "no faults" in capsys.readouterr().out
    assert inspect([address], build_imagenet_dataspec) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "WebDataset tars: 40 + 20 images" in said and f"python data.py {address} /a/cache/folder" in said
    assert inspect([address, "cache", "--workers", "0", "--batch-size", "4"], build_imagenet_dataspec) == 0
    assert "First batches" in capsys.readouterr().out and len(list(Path("cache").rglob("*.tar"))) == 5
    assert run([address, "cache", "--workers", "1"]) == 0


def test_an_index_takes_few_requests(
    plain: Path, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = upload(make_webdataset(plain, tmp_path / "wds"), "photos", "wds")
    asked, really = [], s3.read_range
    monkeypatch.setattr(s3, "read_range", lambda *given: (asked.append(given), really(*given))[1])
    place.plain_ranges.cache_clear()
    copy = open_copy(address, ReadOptions())
    assert copy is not None and len(copy.splits["train"]) == 40
    assert len(asked) <= 4 * len(list((tmp_path / "wds").iterdir())), "not one for each of the 120 labels"


def test_a_store_out_of_reach_is_named(s3_server: str, capsys: pytest.CaptureFixture) -> None:
    assert run(["s3://nowhere/wds", "--workers", "1"]) == 1
    assert "s3://nowhere/wds" in capsys.readouterr().err
    s3_client().create_bucket(Bucket="empty")
    assert run(["s3://empty/wds", "--workers", "1"]) == 1
    assert "s3://empty/wds: holds nothing. Expected shards, train/index.json" in capsys.readouterr().err


def test_an_image_folder_in_a_store_is_checked(plain: Path, s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "data/only/one").mkdir(parents=True)
    shutil.copy(next(plain.rglob("*.JPEG")), tmp_path / "data/only/one")
    shutil.copytree(plain / "train", tmp_path / "data/train")
    shutil.copytree(plain / "val", tmp_path / "data/val")
    shutil.rmtree(tmp_path / f"data/val/{CLASSES[0]}")
    address = upload(tmp_path / "data", "photos", "data")
    assert open_copy(f"{address}/only", ReadOptions()) is None, "one folder of images is not several classes"
    classes = open_copy(f"{address}/train", ReadOptions())
    assert classes is not None and classes.headline == "an image folder: 40 images, 5 classes"
    with pytest.raises(DataError, match=rf"data: 1 class has no images in val/ \({CLASSES[0]}\)"):
        open_copy(address, ReadOptions())
