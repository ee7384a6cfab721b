"""Tables of paths and labels, among them Hugging Face's metadata files, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.archives.catalog import UNSPLIT, DataCopy
from loaders.archives.forms import ReadOptions, open_copy, recognize
from loaders.archives.place import Place
from tests.archives.layouts import CLASSES, converted
from tests.s3 import upload
from tools.convert.sources import open_sources

SPLITS = ("train", "val")


def listed(folder: Path, split: str) -> list[tuple[str, str]]:
    """Return the paths in the folder and the classes of a split's images, in an order that is not the folder's."""
    paths = sorted((folder / split).rglob("*.JPEG"), key=lambda path: path.name[::-1])
    return [(path.relative_to(folder).as_posix(), path.parent.name) for path in paths]


def opened(path: Path, label: str | None = None, offset: int = 0, kind: str | None = None) -> DataCopy:
    copy = open_copy(str(path), ReadOptions(kind, label, offset))
    assert copy is not None
    return copy


def images_of(copy: DataCopy, split: str) -> list[tuple[bytes, str]]:
    catalog = copy.splits[split]
    names = copy.classes or list(map(str, range(1000)))
    return [(catalog.read(at), names[catalog.labels[at]]) for at in range(len(catalog))]


def as_folder(folder: Path, split: str) -> list[tuple[bytes, str]]:
    """Return the images of a split as the image folder orders them."""
    return [(path.read_bytes(), path.parent.name) for path in sorted((folder / split).glob("*/*"))]


@pytest.fixture
def folder(plain: Path, workdir: Path) -> Path:
    """The images of `plain` under another name, so that they are not an image folder."""
    shutil.copytree(plain, workdir / "photos/images")
    return workdir / "photos"


def lines(folder: Path) -> list[str]:
    return [f"{path},{label},{split}" for split in SPLITS for path, label in listed(folder / "images", split)]


def check(copy: DataCopy, plain: Path) -> None:
    assert copy.classes == CLASSES and set(copy.splits) == set(SPLITS)
    for split in SPLITS:
        assert images_of(copy, split) == as_folder(plain, split)


@pytest.mark.parametrize("name", ["bom.csv", "quoted.csv", "semicolons.csv", "tabs.tsv", "lines.jsonl"])
def test_a_table_in_each_notation(name: str, folder: Path, plain: Path) -> None:
    rows = [(f"images/{path}", label, split) for split in SPLITS for path, label in listed(folder / "images", split)]
    text = {
        "bom.csv": "\ufeffpath,label,split\r\n" + "".join(f"{','.join(row)}\r\n" for row in rows),
        "quoted.csv": "label,note,split,path\n\n" + "".join(f'{b}, "1\n2,3",{c},"{a}"\n' for a, b, c in rows),
        "semicolons.csv": "path;label;split\n" + "\n".join(";".join(row) for row in rows),
        "tabs.tsv": "path\tlabel\tsplit\n" + "\n".join("\t".join(row) for row in rows),
        "lines.jsonl": "\n".join(json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) for row in rows),
    }[name]
    (folder / name).write_bytes(text.encode())
    assert recognize(Place(str(folder / name)), ReadOptions()) == "table"
    check(opened(folder / name), plain)
    check(opened(folder), plain)  # the only table in the folder


def test_paths_may_be_absolute_or_go_up_inside_of_the_folder(folder: Path, plain: Path) -> None:
    rows = [
        f"{folder}/images/{path},{label},{split}" if split == "val" else f"images/val/../{path},{label},Training"
        for split in SPLITS
        for path, label in listed(folder / "images", split)
    ]
    (folder / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    check(opened(folder / "table.csv"), plain)


def test_the_split_is_what_the_tables_or_the_folders_are_called(folder: Path, plain: Path) -> None:
    rows = {split: [f"images/{path},{label}" for path, label in listed(folder / "images", split)] for split in SPLITS}
    (folder / "train.csv").write_text("\n".join(["path,label", *rows["train"]]))
    (folder / "valid.csv").write_text("\n".join(["path,label", *rows["val"]]))
    (folder / "test.csv").write_text("path\nimages/unlabeled.jpg")
    copy = opened(folder)
    check(copy, plain)
    assert copy.remarks == [f"{folder}/test.csv: the test split is left out."]
    both = [row.removeprefix("images/") for split in SPLITS for row in rows[split]]
    (folder / "images/of_all.csv").write_text("\n".join(["path,label", *both]))
    check(opened(folder / "images/of_all.csv"), plain)
    (folder / "images/of_all.csv").write_text("\n".join(["path,label,split", *(f"{row}," for row in both)]))
    check(opened(folder / "images/of_all.csv"), plain)


def test_images_without_a_split(folder: Path) -> None:
    rows = [f"images/{path},{label}" for split in SPLITS for path, label in listed(folder / "images", split)]
    (folder / "table.csv").write_text("\n".join(["image,label", *rows]))
    assert {name: len(found) for name, found in opened(folder).splits.items()} == {UNSPLIT: len(rows)}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_hugging_faces_image_folder(kind: str, plain: Path, workdir: Path) -> None:
    """One table in each split's folder, or one above them."""
    for split, called in (("train", "train"), ("val", "validation")):
        (workdir / "hf" / called).mkdir(parents=True)
        rows = [("file_name", "label")]
        for path, label in listed(plain, split):
            shutil.copy(plain / path, workdir / "hf" / called)
            rows.append((Path(path).name, label))
        (workdir / "hf" / called / f"metadata.{kind}").write_text(written(rows, kind))
    (workdir / "hf/test").mkdir()
    (workdir / "hf/test/metadata.csv").write_text("file_name\na.jpg")
    copy = opened(workdir / "hf")
    check(copy, plain)
    assert copy.what == "Hugging Face's image folder"
    assert copy.remarks == [f"{workdir}/hf/test/metadata.csv: the test split is left out."]
    shutil.copytree(plain, workdir / "one")
    rows = [("file_name", "label"), *(row for split in SPLITS for row in listed(plain, split))]
    (workdir / f"one/metadata.{kind}").write_text(written(rows, kind))
    assert recognize(Place(str(workdir / "one")), ReadOptions()) is None  # an image folder as well
    check(opened(workdir / "one", kind="table"), plain)


def written(rows: list[tuple[str, str]], kind: str) -> str:
    if kind == "csv":
        return "\n".join(",".join(row) for row in rows)
    return "\n".join(json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:])


def test_labels_that_are_numbers(folder: Path) -> None:
    rows = [(f"images/{path}", CLASSES.index(label) + 1) for path, label in listed(folder / "images", "train")]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"path": path, "class": label}) for path, label in rows))
    copy = opened(folder / "a.jsonl", "class")
    assert copy.classes is None and sorted(set(copy.splits[UNSPLIT].labels)) == [1, 2, 3, 4, 5]
    assert copy.remarks == ["No image has the label 0. Are the labels counted from 1? Add --label-offset -1"]
    found = images_of(opened(folder / "a.jsonl", "class", -1), UNSPLIT)
    assert [(data, CLASSES[int(label)]) for data, label in found] == as_folder(folder / "images", "train")
    with pytest.raises(DataError, match=r"a\.jsonl, line \d+: its label is -1; labels are from 0 to 9,999,999\."):
        opened(folder / "a.jsonl", "class", -2)


FAULTS = {
    "no header": ("images/a.jpg,cat\nimages/b.jpg,dog", "line 2: there is no column of paths (file_name, filename, "),
    "no label": ("path,cls,note\nA,cat,", "line 2: there is no column label, only path, cls, note. Name the one of"),
    "absent": (
        "path,label\nA,cat\nnone.jpg,cat\nno,dog",
        "line 3: names none.jpg, which is not a file in {}, and so do 1",
    ),
    "a folder": ("path,label\nA,cat\nimages,cat", "line 3: names images, which is not a file in {}. Paths are rel"),
    "twice": ("path,label\nA,cat\nimages/../A,dog", "line 3: A is listed already, in {}/t.csv, line 2. Remove one"),
    "outside": ("path,label\n../A,cat", "line 2: ../A is outside of the table's folder, {}. Move it there."),
    "absolute": ("path,label\n/etc/passwd,cat", "line 2: /etc/passwd is outside of the table's folder, {}."),
    "empty label": ('path,label\n\nA,""', "line 3: its label is empty. Fill it in, or remove the line."),
    "empty path": ("path,label\n,cat", "line 2: its path is empty."),
    "null": ("path,label\nA\0B,cat", "line 2: its path, 'A\\x00B', holds unprintable characters."),
    "line break": ('path,label\nA,"c\nat"', "line 2: its label, 'c\\nat', holds unprintable characters."),
    "cells": ("path,label\nA,cat\nB,cat,x", "line 3: has 3 cells for 2 columns (path, label). A cell that holds a"),
    "quotes": ('path,label\nA,cat\n"B,cat\nC,cat', "line 3: is not CSV (unexpected end of data). Is a quotation mark"),
    "columns": ("path,label,label\nA,cat,dog", "line 1: has two columns label. Rename one."),
    "split": ("path,label,split\nA,cat,train\nB,dog,unseen", "line 3: its split is unseen; it must be train, val or"),
    "no split": ("path,label,split\nA,cat,train\nB,dog,", "line 3: names no split, as others do. Fill in its column"),
    "class": ("path,label,split\nA,cat,train\nB,Cat,val", "line 3: no image for training has its label, Cat; did you"),
    "latin": ("path,label\nA,caf\udce9", "line 2: is not UTF-8 (byte 0xe9). Save it as CSV in UTF-8 again."),
    "empty": ("", ": is empty. Its first line should name the columns: path,label"),
    "alone": ("path,label", ": holds no images."),
    "long": (f"path,label\nA,{'x' * 200_000}", "line 2: is not CSV (field larger than field limit"),
    "negative": ("path,label\nA,1\nB,-1", "line 3: its label is -1; labels are from 0 to 9,999,999."),
    "huge": ("path,label\nA,1\nB,10000000", "line 3: its label is 10000000; labels are from 0 to 9,999,999."),
    "huger": (f"path,label\nA,1\nB,{2**63}", f"line 3: its label is '{2**63}'; a label is a whole number from 0 to"),
    "fraction": ("path,label\nA,1.0\nB,.5e1", "line 2: its label is '1.0'; a label is a whole number from 0 to"),
    "none": ("path,label\nA,1\nB,NaN", "line 3: its label is 'NaN'; a label is a whole number from 0 to 9,999,999,"),
    "one-hot": ('path,label\nA,"[0, 1]"', "line 2: its label is '[0, 1]'; a label is a whole number from 0 to"),
    "offset": ("path,label\nA,1\nB,cat", "line 3: its label is 'cat', which is not a number. Leave out"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_table_is_one_sentence(name: str, workdir: Path) -> None:
    for image in ("A", "B", "C"):
        Path(image).write_bytes(b"x")
    Path("images").mkdir()
    text, said = FAULTS[name]
    Path("t.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        open_copy(f"{workdir}/t.csv", ReadOptions(label_offset=name == "offset"))
    assert str(caught.value).startswith(
        f"{workdir}/t.csv{'' if said.startswith(':') else ', '}{said.format(workdir, 1)}"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"path": "A", "label": 1}\n{"path"', "line 2: is not JSON (Expecting ':' delimiter: "),
        ("[" * 100_000, "line 1: is not JSON ("),
        ('["A", "cat"]', 'line 1: is not an object such as {"path": "a.jpg", "label": "cat"}.'),
        ('{"path": "A", "label": 1.5}', "line 1: its label is 1.5; it must be text or a whole number."),
        ('{"path": "A", "label": true}', "line 1: its label is True; it must be"),
        ('{"path": ["A"], "label": 1}', "line 1: its path is ['A']; it must be"),
        ('{"path": "A", "label": 1}\n{"file": "B", "label": 1}', "line 2: there is no column of paths ("),
    ],
)
def test_each_fault_of_json_lines_is_one_sentence(text: str, said: str, workdir: Path) -> None:
    Path("A").write_bytes(b"x")
    Path("t.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        open_copy(f"{workdir}/t.jsonl", ReadOptions(kind="table"))
    assert str(caught.value).startswith(f"{workdir}/t.jsonl, {said}")


def test_labels_that_no_image_has_are_a_remark(workdir: Path) -> None:
    for name in ("A", "B"):
        Path(name).write_bytes(b"x")
    Path("t.csv").write_text("path,label\nA,1\nB,9")
    said = "The largest label is 9; 8 labels below it have no images (0, 2, 3, 4, 5 and 3 more)."
    assert opened(workdir / "t.csv").remarks == [said]


def test_tables_with_other_columns_are_named(workdir: Path) -> None:
    """Where nothing else is recognized, as for Kaggle's tables of names without extensions."""
    Path("images").mkdir()
    Path("labels.csv").write_text("id,breed\na,cat\n")
    Path("folder.csv").mkdir()
    with pytest.raises(
        DataError, match=rf"\n{workdir}/labels\.csv: has the columns id, breed\. A table of paths has path and"
    ):
        open_sources(str(workdir), None)


def test_what_is_not_a_table_is_left_to_others(plain: Path, workdir: Path) -> None:
    """An image folder stays one, whatever tables lie in it; so do other files."""
    shutil.copytree(plain, workdir / "data")
    (workdir / "data/split.csv").write_text("image,label\ntrain/a.jpg,cat")
    (workdir / "data/train/metadata.csv").write_text("file_name,caption\na.jpg,cat")
    (workdir / "other").mkdir()
    (workdir / "other/scores.csv").write_bytes(b'\xff\0,,\n"')
    shutil.copytree(plain / "train", workdir / "classes")
    (workdir / "classes/sizes.csv").write_text("path,size\na.jpg,1")
    for name in ("data", "other", "classes"):
        assert recognize(Place(str(workdir / name)), ReadOptions()) is None


@pytest.mark.slow
def test_a_conversion_is_the_image_folders(folder: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (folder / "table.csv").write_text("\n".join(["path,label,split", *(f"images/{line}" for line in lines(folder))]))
    assert converted(folder / "table.csv", tmp_path / "mds") == expected


@pytest.mark.slow
def test_a_table_in_a_store(folder: Path, expected: dict[str, bytes], s3_server: str, tmp_path: Path) -> None:
    """Its paths may be addresses, too."""
    rows = [f"s3://photos/all/images/{line}" for line in lines(folder)]
    (folder / "table.csv").write_text("\n".join(["path,label,split", *rows]))
    assert converted(f"{upload(folder, 'photos', 'all')}/table.csv", tmp_path / "mds") == expected
