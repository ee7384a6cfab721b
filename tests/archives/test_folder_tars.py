"""Tars of an image folder become the same shards as the folder."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from loaders.archives import folder_tars, order
from loaders.storage.seek_file import MOST_BYTES
from tests.archives.layouts import CLASSES, converted, make_folder_tar, make_hugging_face_tars, samples, write_tar
from tests.archives.opening import fault, opened


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenette2-320.tgz", "images.tar", "images.tar.gz"])
def test_identical_shards(plain: Path, expected: dict[str, bytes], tmp_path: Path, name: str) -> None:
    make_folder_tar(plain, tmp_path / name, prefix="./imagenette2-320/" if "2" in name else "")
    assert converted(tmp_path / name, tmp_path / "mds") == expected


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "data"])
def test_identical_shards_of_hugging_faces_tars(
    plain: Path, expected: dict[str, bytes], tmp_path: Path, below: str
) -> None:
    make_hugging_face_tars(plain, tmp_path / "hf" / below)
    assert converted(tmp_path / "hf", tmp_path / "mds") == expected
    [remark] = opened(tmp_path / "hf").remarks
    assert remark.endswith("test_images.tar.gz is left out: test images have no labels.")


def test_a_tar_for_each_split_and_none(tmp_path: Path) -> None:
    """Without train/ and val/ inside, the classes are the folders in the folder that holds all images."""
    members = [(f"data/images/{one}/{name}.png", b"x") for one in ("cat", "dog/small") for name in ("b", "a")]
    others = [("data/README.md", b""), ("data/images/._cat.png", b""), ("logo.png", b"")]
    write_tar(tmp_path / "train.tar", [*members, ("data/images/cat/_/c.png", b"x"), *others[:2]])
    write_tar(tmp_path / "val.tgz", members, "w:gz")
    copy = opened(tmp_path)
    assert copy.classes == ["cat", "dog"] and copy.splits["val"].labels.tolist() == [0, 0, 1, 1]
    names = [copy.splits["train"].name(at).rpartition("images/")[2] for at in range(5)]
    assert names == ["cat/a.png", "cat/b.png", "cat/_/c.png", "dog/small/a.png", "dog/small/b.png"]
    assert copy.remarks == ["2 files are not images of a class, and are ignored (.md, .png)."]
    (tmp_path / "train.tar").unlink()
    (tmp_path / "val.tgz").rename(tmp_path / "everything.tgz")
    assert [*opened(tmp_path / "everything.tgz").splits] == ["all"]


def test_what_else_is_in_a_tar(tmp_path: Path) -> None:
    members = [(f"x/{split}/{one}/1.jpg", b"x") for split in ("Train", "validation") for one in "ab"]
    members += [("x/noisy.csv", b""), ("x/train/loose.jpg", b"x"), ("x/sheets/all.jpg", b"x"), ("x/test/a/2.jpg", b"x")]
    write_tar(tmp_path / "x.tar", members)
    copy = opened(tmp_path)
    assert {split: len(catalog) for split, catalog in copy.splits.items()} == {"train": 2, "val": 2}
    assert copy.remarks == [
        "1 test image is left out.",
        "2 files are not images of a class, and are ignored (.csv, .jpg).",
    ]


def test_folders_of_programs_get_a_remark(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/a/.ipynb_checkpoints/2.jpg", "train/@eaDir/3.jpg"]
    write_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    (remark,) = opened(tmp_path / "x.tar").remarks
    assert remark.startswith(".ipynb_checkpoints, @eaDir look like folders made by programs; images in them are used")


def test_an_image_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a/1.jpg")
    info.size = MOST_BYTES + 1
    (tmp_path / "x.tar").write_bytes(info.tobuf())
    os.truncate(tmp_path / "x.tar", MOST_BYTES + 10_240)
    catalog = opened(tmp_path / "x.tar").splits["all"]
    with pytest.raises(DataError, match=r"x\.tar, a/1\.jpg: has 600,000,001 bytes, too many for an image"):
        catalog.read(0)


def test_faults(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    good = [(f"train/{one}/1.jpg", b"x") for one in "ab"]
    write_tar(path, [*good, good[1]])
    assert fault(path) == f"{path}, train/b/1.jpg: is there twice. Write the archive again."
    latin = ("train/b/caf\udce9.jpg", b"x")
    write_tar(path, [*good, latin, latin])
    assert fault(path) == f"{path}, {latin[0]}: is there twice. Write the archive again."
    write_tar(path, [*good, ("val/a/1.jpg", b"x")])
    assert fault(path).startswith(f"{path}: 1 class has no images in val/ (b).")
    write_tar(path, [("tench.tar", b"x")])
    assert fault(path).startswith(f"{path}: holds other archives; unpack it once. Tars may hold train/CLASS/*.JPEG")
    write_tar(path, [("1.jpg", b"x"), ("2.jpg", b"x")])
    assert fault(path).startswith(f"{path}: holds no images in folders. Tars may")
    write_tar(path, [("train/a/../../../1.jpg", b"x")])
    assert "its member train/a/../../../1.jpg leads out of the archive" in fault(path)
    write_tar(path, [(f"train/{one}/{CLASSES[0]}_1.JPEG", b"x") for one in CLASSES[:2]])
    assert f"its name says {CLASSES[0]}, but its label, 1, is {CLASSES[1]}" in fault(path)
    path.write_bytes(b"not a tar" * 1000)
    assert fault(path).startswith(f"{path}: is not a whole tar archive")
    path.rename(tmp_path / "x.tgz")
    assert fault(tmp_path / "x.tgz").startswith(f"{tmp_path}/x.tgz: is damaged, before byte")


def test_large_gzip_files_are_read_by_stretches(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_folder_tar(plain, tmp_path / "large.tgz", in_order=True)
    monkeypatch.setattr(folder_tars, "WITHIN_REACH", 1)
    monkeypatch.setattr(folder_tars, "STRETCH", 4096)
    monkeypatch.setattr(order, "WINDOW", 4)
    copy = opened(path)
    for split, catalog in copy.splits.items():
        assert catalog.mixed
        found = [(catalog.read(at), CLASSES[catalog.labels[at]]) for at in range(len(catalog))]
        assert sorted(found) == sorted((data, one) for _, data, one in samples(plain, split))
    offsets = copy.splits["train"].offsets // 4096
    assert offsets.tolist() != sorted(offsets.tolist())
    assert np.all(np.diff(copy.splits["val"].offsets) > 0)


def test_mixed_classes() -> None:
    random = np.random.default_rng(0)
    for classes in (2, 10, 1000):
        labels = np.repeat(np.arange(classes), 20)
        assert not order.is_mixed(labels) and order.is_mixed(random.permutation(labels))
    assert order.is_mixed(np.zeros(5, np.int64))
