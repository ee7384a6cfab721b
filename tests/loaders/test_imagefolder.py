"""Files that are not images and links in class folders: each is counted, remarked on or rejected."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.imagefolder import ImageFolderDataset, list_class, structure_faults
from loaders.storage.inspection import inspect
from loaders.storage.inspection_splits import open_splits
from loaders.storage.seek_file import MOST_BYTES
from tests.image_files import make_imagefolder, make_shards
from tools.convert.sources import FolderSource, open_sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_imagefolder(tmp_path / "set", classes=("cat", "dog"), per_class=2)


def refusals(root: Path) -> list[str]:
    """Return the errors of verification, conversion, training and data.py for the folder."""
    said = []
    looks: list[Callable[[], object]] = [
        lambda: open_splits(str(root), None),
        lambda: FolderSource(str(root), "train"),
        lambda: ImageFolderDataset(root, "train", EvaluationPipeline(-1, 8), 0),
        lambda: inspect(str(root), None),
    ]
    for look in looks:
        with pytest.raises(DataError) as caught:
            look()
        said.append(str(caught.value))
    return said


def test_files_that_are_not_read_are_counted(root: Path) -> None:
    """By their names, or because they are not regular files: reading a pipe would block."""
    for name in ("a.gif", "b.avif", "c.heic", "notes"):
        (root / "train/cat" / name).write_bytes(b"x")
    os.mkfifo(root / "train/dog/pipe.jpg")
    (root / "train/dog/0000.jpeg").rename(root / "train/dog/0000.jfif")
    remark = "train: 5 files are not images by name or type, and are ignored (.avif, .gif, .heic, .jpg, notes)."
    assert open_splits(str(root), None)[0][0].remarks == [remark]
    assert FolderSource(str(root), "train").remarks == [remark]
    report = inspect(str(root), None)[0][0]
    assert remark in report.remarks and report.images == 4 and not report.faults


def test_a_file_that_is_too_large_is_not_read(root: Path) -> None:
    image = min((root / "train/cat").iterdir())
    os.truncate(image, MOST_BYTES + 1)
    with pytest.raises(DataError, match=rf"{image}: cannot be read \(File too large\)"):
        ImageFolderDataset(root, "train", EvaluationPipeline(-1, 8), 0).read(0)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", ".Trash-1000", "__MACOSX"])
def test_folders_of_programs_get_a_remark(root: Path, name: str) -> None:
    make_imagefolder(root, classes=(name,), per_class=1)
    make_imagefolder(root / "train/cat", classes=(name,), per_class=1)
    (remark,) = FolderSource(str(root), "train").remarks
    assert remark.startswith(f"train: {name}, cat/train/{name}, cat/val/{name} look like folders made by programs")
    assert not FolderSource(str(make_imagefolder(root.parent / "plain")), "train").remarks


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog"])
def test_circular_links_are_rejected(root: Path, target: str) -> None:
    (root / "train/cat/again").symlink_to(target)
    if target == "../dog":
        assert len(list_class(root / "train/cat").images) == 4, "links to other folders are allowed"
        (root / "train/dog/back").symlink_to("../cat")
    for said in refusals(root):
        assert "is a link to" in said and ", which contains it. " in said


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_side_of_a_split(root: Path, split: str) -> None:
    """It is not to be split again."""
    said = f"{root / split}: is one side of a split data set. Give the folder that holds both: {root}"
    assert structure_faults(root / split) == [said]


def test_class_folders_that_are_dangling_links(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "mounted").symlink_to("/nowhere/at/all")
    faults = structure_faults(root)
    assert len(faults) == 2 and all("mounted is a dangling link" in fault for fault in faults)


def test_folders_within_a_class_that_are_dangling_links(root: Path) -> None:
    for place in ("train/cat", "train/dog/below"):
        link = root / place / "mounted"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to("/nowhere/at/all")
        for said in refusals(root):
            assert said.startswith(f"{link.parent}: mounted is a dangling link. Is a disk not mounted?")
        link.unlink()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", ["images", "shards"])
def test_a_split_that_is_a_dangling_link(kind: str, split: str, root: Path, tmp_path: Path) -> None:
    place = root if kind == "images" else make_shards(root, tmp_path / "mds")
    shutil.rmtree(place / split)
    (place / split).symlink_to("/nowhere/at/all")
    said = f"{place}: {split} is a dangling link" if kind == "images" else f"{place}: has no {split}/. "
    assert said in "\n".join(open_splits(str(place), None)[1])
    with pytest.raises(DataError, match=said):
        open_sources(str(place), None)


def test_a_dangling_image_link_is_reported(root: Path) -> None:
    (root / "train/cat/gone.jpg").symlink_to("/nowhere/at/all")
    fault = f"{root}/train/cat/gone.jpg: cannot be read (No such file or directory). Replace or delete it."
    assert inspect(str(root), None)[1] == [fault]


def test_files_next_to_the_class_folders_are_counted(root: Path) -> None:
    (root / "train/image.jpg").write_bytes((root / "train/cat/0000.jpeg").read_bytes())
    (root / "train/list.txt").touch()
    remark = "train: 2 files next to the class folders are ignored (image.jpg, list.txt)."
    assert FolderSource(str(root), "train").remarks == [remark]
    assert remark in inspect(str(root), None)[0][0].remarks


def test_folders_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, scandir = str(root / "train/cat/locked"), os.scandir
    Path(locked).mkdir()

    def refuse(path: object) -> object:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", locked)
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)  # root may read any folder
    for said in refusals(root):
        assert said.startswith(f"{locked}: cannot be listed (Permission denied)")
