"""Parquet files become the same shards as the folder if they fit into memory, and else are read by row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders.archives import parquet as reading
from loaders.archives import row_groups
from loaders.class_names import imagenet
from tests.archives.layouts import CLASSES, converted, make_parquet, samples, table_of
from tests.archives.opening import fault, opened

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
REMARK = "1 file is left out, as test images ({}test-00000-of-00001.parquet)."


@pytest.fixture(scope="module")
def files(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parquet(plain, tmp_path_factory.mktemp("hf") / "data", CLASSES).parent


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no more than two row groups at once."""
    monkeypatch.setattr(reading, "CACHE", 16_000)
    monkeypatch.setattr(row_groups, "CACHE", 16_000)
    row_groups._cached.clear()


@pytest.mark.slow
def test_identical_shards(files: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    assert converted(files, tmp_path / "mds") == expected
    assert opened(files).remarks == [REMARK.format("data/")]


def test_imagenet(plain: Path, tmp_path: Path) -> None:
    """Its classes are known by words, its labels compared with the names of the files."""
    labels, words = list(imagenet()), [f"word {number}" for number in range(1000)]
    for split in ("train", "val"):
        rows = samples(plain, split)
        table = table_of(rows, labels).replace_schema_metadata(table_of([], words).schema.metadata)
        parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    copy = opened(tmp_path)
    assert copy.classes == labels
    for split, catalog in copy.splits.items():
        found = [(catalog.read(at), labels[catalog.labels[at]]) for at in range(len(catalog))]
        assert found == [(data, one) for _, data, one in samples(plain, split)]
    path = tmp_path / "shifted.parquet"
    shifted = [(name, data, labels[labels.index(one) - 1]) for name, data, one in rows[:4]]
    table = table_of(rows[:4], labels).set_column(1, "label", table_of(shifted, labels)["label"])
    parquet.write_table(table.replace_schema_metadata(table_of([], words).schema.metadata), path)
    assert fault(path).startswith(f"{path}, ILSVRC2012_val_00000001_{CLASSES[0]}.JPEG: its name says {CLASSES[0]}, but")


@pytest.mark.parametrize("in_order", [False, True])
def test_large_files_are_read_by_row_groups(plain: Path, tmp_path: Path, no_room: None, in_order: bool) -> None:
    files = make_parquet(plain, tmp_path, CLASSES, in_order=in_order)
    copy = opened(files)
    for split, catalog in copy.splits.items():
        assert catalog.mixed
        found = [(catalog.read(at), CLASSES[catalog.labels[at]]) for at in range(len(catalog))]
        assert sorted(found) == sorted((data, one) for _, data, one in samples(plain, split))
    assert sum(values.nbytes for values in row_groups._cached.values()) <= 16_000
    catalog = copy.splits["train"]
    rows = catalog.file * 1000 + catalog.offsets
    assert (rows.tolist() == sorted(rows.tolist())) is not in_order
    groups = rows // 5
    assert np.count_nonzero(np.diff(groups)) < (len(groups) - 1 if in_order else 9)


def test_other_columns(tmp_path: Path) -> None:
    """Bytes alone, labels that are names, also as a dictionary; one file, without a split."""
    images, names = [b"1", b"2", b"3"], ["dog", "cat", "dog"]
    kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
    for number, kind in enumerate(kinds):
        path = tmp_path / f"{number}.parquet"
        table = pyarrow.table({"img": images, "breed": pyarrow.array(names).cast(kind), "n": [1, 2, 3]})
        parquet.write_table(table, path)
        copy = opened(path, label="breed")
        assert copy.classes == ["cat", "dog"] and copy.splits["all"].labels.tolist() == [1, 0, 1]
        assert [copy.splits["all"].read(at) for at in range(3)] == images
        assert copy.splits["all"].name(2) == "row 2"
    copy = opened(path, label="n", label_offset=-1)
    assert copy.classes is None and copy.splits["all"].labels.tolist() == [0, 1, 2]


def column(values: Any, kind: Any = None, **others: Any) -> dict[str, Any]:
    return {"image": pyarrow.array(values, kind) if kind else values, "label": [0, 1], **others}


LATIN = pyarrow.array([b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
PATHS = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
FAULTS = {
    ": has no column of images": column(["a.jpg", "b.jpg"]),
    "it has image (string), label (int64)": column(["a.jpg", "b.jpg"]),
    "it has image (list<": column([[b"1"], [b"2"]]),
    ", row group 0: 1 row has no image, a path at most": column([{"bytes": b"1"}, {"path": "b.jpg"}], PATHS),
    ", row group 0: 2 rows have no image": column([None, None], PATHS),
    ": has no column label; it has image (binary), class (int64). Give --label KEY.": {"image": [b"1"], "class": [1]},
    ", row group 0: its column label is not text in UTF-8. Write": {"image": [b"1"], "label": LATIN},
    ", row group 0: its column image.path is not text in UTF-8": {
        "image": pyarrow.StructArray.from_arrays([pyarrow.array([b"1"]), LATIN], ["bytes", "path"]),
        "label": [0],
    },
    ": has several columns of images": {"a": [b"1"], "b": [b"1"], "label": [0]},
    ": its column label has type double, not integers or names": {"image": [b"1"], "label": [0.5]},
    f", row 0: its label is '{2**63}'; a label is a whole number": {"image": [b"1"], "label": np.array([2**63], "u8")},
    ", row 0: its label is '1.0'; a label is a whole number": {"image": [b"1", b"2"], "label": ["1.0", "2"]},
    ", row 1: its label is empty": {"image": [b"1", b"2"], "label": [0, None]},
    ", row 1: its label is -1; labels are from 0 to 9,999,999": {"image": [b"1", b"2"], "label": [0, -1]},
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_names_the_file_and_the_row(tmp_path: Path, said: str) -> None:
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.table(FAULTS[said]), path)
    told = fault(tmp_path)
    assert told.startswith(f"{path}") and said in told and "\n" not in told


def test_labels_outside_of_the_classes(tmp_path: Path) -> None:
    table = table_of([("a", b"1", "cat"), ("b", b"2", "dog")], ["cat", "dog"])
    about = table_of([], ["cat"]).schema.metadata
    parquet.write_table(table.replace_schema_metadata(about), tmp_path / "a.parquet")
    assert fault(tmp_path) == f"{tmp_path}/a.parquet, b_dog.JPEG: its label is 1; labels are from 0 to 0."


def test_faulty_files(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(files.rglob("train-00000*")).read_bytes()
    for number, content in enumerate((whole[:-20], b"", b"PAR1" + whole[50:])):
        path = tmp_path / f"{number}" / "train.parquet"
        path.parent.mkdir()
        path.write_bytes(content)
        assert fault(path).startswith(f"{path}: is not a whole parquet file (") and "Download" in fault(path)
    folder = tmp_path / "two"
    folder.mkdir()
    parquet.write_table(table_of([("a", b"1", "x")], ["x"]), folder / "train-0.parquet")
    parquet.write_table(pyarrow.table({"image": [b"1"], "label": [0]}), folder / "train-1.parquet")
    assert fault(folder).startswith(f"{folder}/train-1.parquet: its columns are other ones than those of train-0")
    monkeypatch.setattr(reading, "LARGEST", 10)
    assert fault(files).endswith("Write the file again in smaller row groups, of 100 images.")


def test_without_pyarrow(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row_groups._opened.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert fault(files).endswith("reading parquet files needs pyarrow: pip install -c constraints.txt '.[archives]'")
