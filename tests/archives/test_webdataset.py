"""WebDataset tars are indexed where they lie, and converted like any data set."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaders.archives.forms import ReadOptions, open_copy
from loaders.archives.place import Place
from loaders.archives.webdataset import is_webdataset
from loaders.class_names import imagenet
from tests.archives.layouts import CLASSES, contents, converted, make_webdataset, samples, write_tar
from tests.archives.opening import fault, opened

IMAGE = io.BytesIO()
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(IMAGE, "JPEG")
JPEG = IMAGE.getvalue()


def tar_of(folder: Path, *members: tuple[str, bytes], name: str = "train.tar") -> Path:
    """Write a tar with two valid samples, then these members."""
    folder.mkdir(exist_ok=True)
    first = [("first.cls", b"0"), ("first.jpg", JPEG), ("second.cls", b"1"), ("second.jpg", JPEG)]
    write_tar(folder / name, [*first, *members])
    return folder


@pytest.fixture(scope="module")
def tars(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_webdataset(plain, tmp_path_factory.mktemp("wds") / "tars")


def test_every_image_is_found_where_it_lies(plain: Path, tars: Path) -> None:
    copy = opened(tars)
    assert copy.classes == list(imagenet()) and not copy.remarks
    for split, catalog in copy.splits.items():
        found = [(catalog.read(at), copy.classes[catalog.labels[at]]) for at in range(len(catalog))]
        assert found == [(data, one) for _, data, one in samples(plain, split)]  # in the folder's order


@pytest.mark.slow
def test_a_conversion_holds_the_same_images(plain: Path, tars: Path, tmp_path: Path) -> None:
    converted(tars, tmp_path / "mds")
    labels = list(imagenet())
    for split in ("train", "val"):
        found = Counter((data, labels[label]) for data, label in contents(tmp_path / "mds", split))
        assert found == Counter((data, one) for _, data, one in samples(plain, split))
        assert {labels[label] for _, label in contents(tmp_path / "mds", split)} == set(CLASSES)


@pytest.mark.parametrize("names", [("train-0.tar", "valid-0.tar"), ("Train/0.tar", "validation/0.tar")])
def test_splits_by_names_and_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    for path in (tmp_path / name for name in names):
        tar_of(path.parent, name=path.name)
    copy = opened(tmp_path)
    assert {split: len(catalog) for split, catalog in copy.splits.items()} == {"train": 2, "val": 2}
    assert copy.classes is None


def test_tars_without_a_split_and_one_tar(tmp_path: Path) -> None:
    tar_of(tmp_path, name="00000.tar")
    tar_of(tmp_path, name="00002.tar")
    copy = opened(tmp_path)
    assert {split: len(catalog) for split, catalog in copy.splits.items()} == {"all": 4}
    assert copy.remarks == ["The tars *.tar end with number 2, but only 2 are there: is one missing?"]
    assert len(opened(tmp_path / "00002.tar").splits["all"]) == 2


def test_a_sample_and_its_image(tmp_path: Path) -> None:
    """Folders, dots in folders, upper case, masks, and what other programs leave in tars."""
    members = [("./a.b/one.seg.png", b"mask"), ("./a.b/one.JPG", JPEG), ("./a.b/one.cls", b"2\n")]
    tar_of(tmp_path, ("._first.jpg", b"AppleDouble"), ("__info__.json", b"{}"), (".DS_Store", b""), *members)
    [catalog] = opened(tmp_path).splits.values()
    assert catalog.labels.tolist() == [0, 1, 2]
    assert catalog.name(2) == "./a.b/one.JPG" and catalog.read(2) == JPEG


def img2dataset(folder: Path) -> Path:
    members = []
    for number, color in enumerate(["red", "blue", "red"]):
        described = json.dumps({"caption": color, "key": str(number), "meta": {"x": 1}, "n": number + 1}).encode()
        members += [(f"{number:09}.jpg", JPEG), (f"{number:09}.json", described), (f"{number:09}.txt", color.encode())]
    write_tar(folder / "00000.tar", members)
    return folder


@pytest.mark.parametrize("key", ["txt", "caption"])
def test_labels_that_are_texts(tmp_path: Path, key: str) -> None:
    copy = opened(img2dataset(tmp_path), label=key)
    assert copy.classes == ["blue", "red"] and copy.splits["all"].labels.tolist() == [1, 0, 1]


def test_labels_that_are_numbers_in_json(tmp_path: Path) -> None:
    copy = opened(img2dataset(tmp_path), label="n", label_offset=-1)
    assert copy.classes is None and copy.splits["all"].labels.tolist() == [0, 1, 2]


def test_samples_without_a_label_say_what_could_be_one(tmp_path: Path) -> None:
    path = img2dataset(tmp_path)
    start = f"{path}/00000.tar, 000000000: "
    assert fault(path) == f"{start}has no cls with its label, but txt, caption, key, n. Give --label KEY."
    assert fault(path, label="colour").startswith(f"{start}has no colour with its label, but txt, caption")
    assert (
        fault(path, label="meta") == f"{start}meta of its JSON is {{'x': 1}}, not a number or name. Give --label KEY."
    )
    told = fault(path, label="txt", label_offset=-1)
    assert told.startswith(f"{start[:-2]}.jpg: its label is 'red', which is not a number. Leave out --label-offset")
    write_tar(tmp_path / "00000.tar", [(f"{n}.{kind}", f"{n}".encode()) for n in range(3) for kind in ("jpg", "png")])
    assert "has several images, jpg, png" in fault(path, kind="webdataset")


def test_captions_are_not_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [(f"{n}.{kind}", f"text {n}".encode()) for n in range(10) for kind in ("jpg", "txt")])
    assert "its label is 'text 0', and no other image has the same" in fault(tmp_path, label="txt")


FAULTS = {
    "third: has no image, only cls": [("third.cls", b"1")],
    "third: has no cls with its label": [("third.jpg", JPEG), ("third.txt", b"a")],
    "third: has no label, only jpg": [("third.jpg", JPEG)],
    "third.jpg: its label is empty": [("third.jpg", JPEG), ("third.cls", b" \n")],
    "third.jpg: its label is -1": [("third.jpg", JPEG), ("third.cls", b"-1")],
    "third.jpg: its label is 123456789012345678; labels are from 0 to 9,999,999.": [
        ("third.jpg", JPEG),
        ("third.cls", b"123456789012345678"),
    ],
    "third.jpg: its label is '0.5'; a label is a whole number": [("third.jpg", JPEG), ("third.cls", b"0.5")],
    "third.cls: is not text": [("third.jpg", JPEG), ("third.cls", b"\xff\xfe")],
    "third.cls: has 2,000,000 bytes": [("third.jpg", JPEG), ("third.cls", bytes(2_000_000))],
    "third.json: is not JSON": [("third.jpg", JPEG), ("third.json", b"{")],
    "third: has several images, jpg, png": [("third.jpg", JPEG), ("third.png", JPEG), ("third.cls", b"1")],
    "third.JPG: is there twice": [("third.jpg", JPEG), ("third.JPG", JPEG), ("third.cls", b"1")],
    "first.cls: first is there twice": [("first.cls", b"1"), ("first.jpg", JPEG)],
    "../third.jpg leads out of the archive": [("../third.jpg", JPEG)],
    "/third.jpg leads out of the archive": [("/third.jpg", JPEG)],
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_names_the_tar_and_the_sample(tmp_path: Path, said: str) -> None:
    told = fault(tar_of(tmp_path / "tars", *FAULTS[said]))
    assert told.startswith(f"{tmp_path}/tars/train.tar") and said in told and "\n" not in told


def test_damaged_and_empty_tars(tmp_path: Path) -> None:
    folder = tar_of(tmp_path / "tars", name="train-0.tar")
    whole = (folder / "train-0.tar").read_bytes()
    end = 1536 + -(-len(JPEG) // 512) * 512  # of first.jpg
    for size, said in ((end, "truncated, after first.jpg"), (1600, "truncated in first.jpg"), (0, "not a whole tar")):
        (folder / "train-1.tar").write_bytes(whole[:size])
        told = fault(folder)
        assert told.startswith(f"{folder}/train-1.tar: is {said}"), told
    write_tar(folder / "train-1.tar", [])
    assert fault(folder) == f"{folder}/train-1.tar: holds no samples. Copy it again, or remove it."


def test_links_to_nothing_are_not_left_out(plain: Path, tmp_path: Path) -> None:
    tars = make_webdataset(plain, tmp_path / "tars")
    (tars / "README").symlink_to(tmp_path)
    os.mkfifo(tars / "imagenet1k-train-0003.tar")
    opened(tars)
    (tars / "imagenet1k-train-0004.tar").symlink_to(tmp_path / "disk")
    said = "1 link leads to nothing (imagenet1k-train-0004.tar). Is a disk not mounted? Otherwise remove them."
    assert fault(tars) == fault(tars, kind="webdataset") == f"{tars}: {said}"
    next(tars.glob("*train-0000.tar")).write_bytes(b"damaged, but it takes long to see that")
    assert fault(tars) == f"{tars}: {said}"


def test_the_info_file_tells_what_is_missing(plain: Path, tmp_path: Path) -> None:
    tars = make_webdataset(plain, tmp_path / "tars")
    names = sorted(path.name for path in tars.glob("*train*"))
    val = sorted(path.name for path in tars.glob("*valid*"))
    info = {"train": {"filenames": names, "shard_lengths": [15, 15, 10]}, "validation": {"filenames": val}}
    info["validation"]["shard_lengths"] = [15, 5]
    (tars / "_info.json").write_text(json.dumps({"splits": info}))
    assert len(opened(tars).splits["train"]) == 40
    for path in tars.glob("*valid*"):  # a split that was not downloaded at all is not missed
        path.unlink()
    assert [*opened(tars).splits] == ["train"]
    (tars / names[1]).unlink()
    assert f"_info.json lists 1 tar that is not there ({names[1]})" in fault(tars)
    info["train"] = {"filenames": names[:1], "shard_lengths": [16]}
    (tars / "_info.json").write_text(json.dumps({"splits": info}))
    assert f"{names[0]} holds 15 samples, but 16 by its info file" in fault(tars)


def test_imagenets_labels_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "imagenet1k-train-0000.tar"
    write_tar(path, [("n01440764_18.cls", b"1"), ("n01440764_18.jpg", JPEG)])
    told = fault(tmp_path)
    assert told.startswith(f"{path}, n01440764_18.jpg: its name says n01440764, but its label, 1, is n01443537.")
    assert opened(tmp_path, label_offset=-1).splits["train"].labels.tolist() == [0]
    assert "its label is 1000; labels are from 0 to 999" in fault(tmp_path, label_offset=999)


def test_what_is_not_webdataset(plain: Path, tmp_path: Path) -> None:
    assert open_copy(str(plain), ReadOptions()) is None
    write_tar(tmp_path / "n01440764.tar", [("n01440764_1.JPEG", JPEG), ("n01440764_2.JPEG", JPEG)])
    assert not is_webdataset(Place(str(tmp_path)))
    tar_of(tmp_path, name="test-0.tar")
    (tmp_path / "n01440764.tar").unlink()
    assert "holds test images alone. To use them as val/, rename test-0.tar." in fault(tmp_path)
    tar_of(tmp_path, name="train-0.tar")
    assert opened(tmp_path).remarks == ["1 file is left out, as test images (test-0.tar)."]
    tar_of(tmp_path, name="odd.tar")
    assert "the names of odd.tar say neither train nor val" in fault(tmp_path)
