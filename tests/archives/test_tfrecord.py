"""TFRecord files, which protobuf and Google's checksums write here, are read without either."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from loaders.archives.forms import ReadOptions, open_copy
from loaders.class_names import imagenet
from tests.archives.layouts import CLASSES, converted, example, make_tfrecord, samples, write_records
from tests.archives.opening import fault, opened


@pytest.mark.parametrize("slim", [False, True])
def test_imagenet(plain: Path, tmp_path: Path, slim: bool) -> None:
    """In the folder's order; the older files need the offset of their labels."""
    copy = opened(make_tfrecord(plain, tmp_path, slim=slim), label_offset=-1 if slim else 0)
    assert copy.classes == list(imagenet())
    for split, catalog in copy.splits.items():
        found = [(catalog.read(at), copy.classes[catalog.labels[at]]) for at in range(len(catalog))]
        assert found == [(data, one) for _, data, one in samples(plain, split)]
        assert catalog.name(0) == samples(plain, split)[0][0]


@pytest.mark.slow
def test_identical_shards(plain: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Labels that are names give the classes that the folder has."""
    files = make_tfrecord(plain, tmp_path / "records", slim=True)
    assert converted(files, tmp_path / "mds", "--label", "image/class/synset") == expected


def test_labels_from_1(plain: Path, tmp_path: Path) -> None:
    files = make_tfrecord(plain, tmp_path / "slim", slim=True)
    told = fault(files)
    assert told.startswith(f"{files}: labels (image/class/label) are from 1 to 1,000, and none is 0, the background's")
    assert "Add --label-offset -1, or --label KEY with a key of names: it has image/class/label" in told
    write_records(tmp_path / "x.tfrecord", [example(image=b"x", label=label) for label in (1, 2, 3)])
    assert "labels (label) are from 1 to 3" in fault(tmp_path / "x.tfrecord")
    assert opened(tmp_path / "x.tfrecord", label_offset=-1).splits["all"].labels.tolist() == [0, 1, 2]


def test_shifted_labels(plain: Path, tmp_path: Path) -> None:
    files = make_tfrecord(plain, tmp_path)
    path = next(files.glob("*train*-00000-*"))
    wrong = {"image": b"x", "label": 1, "file_name": f"{CLASSES[0]}_1.JPEG".encode()}
    write_records(path, [example(**wrong), *(example(image=b"x", label=0, file_name=wrong["file_name"]) for _ in "ab")])
    assert f"{path}, {CLASSES[0]}_1.JPEG: its name says {CLASSES[0]}, but its label, 1, is" in fault(files)


FAULTS = {
    "record 0: has no image (image/encoded, image, ": {"picture": b"x", "label": 0},
    "record 0: has no label, but image, kind. Give --label KEY.": {"image": b"x", "kind": 0},
    "record 0: its label is empty, or not bytes or an integer": {"image": b"x", "label": 0.5},
    "record 0: image is not bytes": {"image": 1, "label": 1},
    "record 0: its label is -3; labels are from 0 to 9,999,999": {"image": b"x", "label": -3},
    "record 0: its label is '0.5'; a label is a whole number": {"image": b"x", "label": b"0.5"},
    f"record 0: its label is {2**40}; labels are from 0": {"image": b"x", "label": 2**40},
    "record 0: its label is not text": {"image": b"x", "label": b"\xff"},
    "record 0: its label is empty. Write": {"image": b"x", "label": b""},
}


def test_a_name_in_latin_1_is_kept(tmp_path: Path) -> None:
    write_records(tmp_path / "x.tfrecord", [example(image=b"x", label=0, file_name=b"caf\xe9.jpg")])
    assert opened(tmp_path / "x.tfrecord").splits["all"].names.tolist() == [b"caf\xe9.jpg"]


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_names_the_file_and_the_record(tmp_path: Path, said: str) -> None:
    path = tmp_path / "train.tfrecord"
    write_records(path, [example(**FAULTS[said])])  # type: ignore[arg-type]
    told = fault(tmp_path)
    assert told.startswith(f"{path}, {said}") and "\n" not in told


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001"
    write_records(path, [example(image=b"x" * 100, label=number) for number in range(3)])
    whole = path.read_bytes()
    half = len(whole) * 2 // 3
    cases = {
        "record 2: is truncated, as the file ends": whole[:-10],
        "record 2: is damaged: the checksum of its length is not right": whole[: half + 5] + b"?" + whole[half + 6 :],
    }
    for number, (said, content) in enumerate(cases.items()):
        damaged = tmp_path / f"{number}.tfrecord"
        damaged.write_bytes(content)
        assert fault(damaged).startswith(f"{damaged}, {said}")
    write_records(tmp_path / "text.tfrecord", [b"hello, world", b""])
    assert fault(tmp_path / "text.tfrecord").startswith(
        f"{tmp_path}/text.tfrecord, record 0: is not a tf.train.Example"
    )
    (tmp_path / "packed.tfrecord.gz").write_bytes(gzip.compress(whole))
    assert "is compressed; unpack it: gunzip" in fault(tmp_path / "packed.tfrecord.gz")


def test_other_files_with_such_names(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002").write_bytes(b"weights, and more of them")
    assert open_copy(str(tmp_path), ReadOptions()) is None
