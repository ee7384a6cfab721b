"""tools.split: folders, options and classes that cannot be split are one sentence, and nothing is written."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.test_split import Split, photos, split
from tools.split.__main__ import run

__all__ = ["photos", "split"]


@pytest.fixture
def names(photos: Path, workdir: Path) -> Path:
    """Working folder with a folder of classes, a split, and folders that are neither."""
    shutil.copytree(photos, workdir / "photos")
    for name in ("done/train/a", "done/val/a", "other/train/a", "other/test/a", "half/train/a", "half/train/b"):
        (workdir / name).mkdir(parents=True)
    for name in ("empty", "unpacked/photos/a", "unpacked/photos/b", "hollow/a", "hollow/b", "ours", "full"):
        (workdir / name).mkdir(parents=True)
    shutil.copytree(photos / "china", workdir / "one/china")
    shutil.copytree(photos / "china", workdir / "flat")
    shutil.copy(photos / "china/000.jpg", workdir / "hollow/a")
    (workdir / "link").symlink_to("empty")
    for name in ("photos.zip", "ours/split.csv", "full/a.txt"):
        (workdir / name).touch()
    return workdir


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("nowhere out", "nowhere: no such folder. Expected one folder per class, as in nowhere/cat/1.jpg."),
        ("photos.zip out", "photos.zip: is a file. If it is an archive, unpack it, and give the folder."),
        ("s3://bucket/photos out", "s3://bucket/photos: is in a store, but images are split in local folders only."),
        ("photos s3://bucket/out", "s3://bucket/out: is in a store"),
        ("done out", "done: is split already: it has train/ and val/. To look at it: python data.py done"),
        ("other out", "other: is split already, but test/ must be called val/. Rename it: mv other/test other/val"),
        ("half out", "half: has train/ alone. To split that: python -m tools.split half/train out"),
        ("unpacked out", "unpacked: holds one folder, photos/, with 2 in it. To split that: python -m tools.split unp"),
        ("empty out", "empty: it holds no class folders; at least 2 classes are needed."),
        ("flat out", "flat: 40 images lie directly in it, and it holds no class folders; at least 2 classes are"),
        ("one out", "one: it holds one class folder; at least 2 classes are needed."),
        ("hollow out", "hollow: no images in 1 of its 2 folders (b). Add some (.jpg, "),
        ("photos photos", "photos: is inside photos, where its folders would become a class. Choose another folder,"),
        ("photos photos/new/", "photos/new/: is inside photos"),
        ("photos/china .", ".: contains photos/china."),
        ("photos photos.zip", "photos.zip: exists and is not a folder. Choose another name."),
        ("photos full", "full: is not empty. Choose another folder."),
        ("photos ours", "ours: is not empty. Choose another folder, or remove it: rm -r ours"),
        ("photos link", "link: is a link, but DST must be a new folder. Choose another name."),
        (f"photos {'n' * 300}", f"{'n' * 300} cannot be written (File name too long); choose another folder"),
        ("photos ''", "DST is empty; give a new folder, for train/ and val/."),
        ("photos /proc/none/out", "/proc/none/out cannot be written (No such file or directory)"),
    ],
)
def test_folders_that_cannot_be_meant(words: str, sentence: str, split: Split, names: Path) -> None:
    before = sorted(names.rglob("*"))
    status, said = split(*shlex.split(words))
    assert status == 1 and said.startswith(sentence), said
    assert sorted(names.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--val=20", "20 given, but it must be more than 0 and less than 1, as in 0.2"),
        ("--val=0", "0 given, but it must be more than 0"),
        ("--val=nan", "nan given, but it must be more than 0"),
        ("--val=few", "'few' given, but it must be a number, as in 0.2"),
        ("--seed=-1", "-1 given, but it must be 0 or more"),
    ],
)
def test_options(option: str, sentence: str, photos: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run([str(photos), "out", option])
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.slow
def test_classes_with_too_few_images(split: Split, photos: Path, workdir: Path) -> None:
    source = shutil.copytree(photos, workdir / "photos")
    for name in ("alone", "copies", "alike"):
        (source / name).mkdir()
        shutil.copy(photos / "flower/030.jpg", source / name)
    shutil.copy(photos / "flower/030.jpg", source / "copies/1.jpg")
    with Image.open(photos / "flower/030.jpg") as image:
        image.save(source / "alike/again.jpg", quality=50)
    (source / "alone/bad.jpg").touch()
    status, said = split(source, "out")
    assert status == 1 and "3 classes have too few images for both sides: alike (2 images, near-duplicates of " in said
    assert "alone (1 image, and 1 unreadable), copies (2 images, copies of one another). Add images" in said
    assert "use --exact" in said and not (workdir / "out").exists()
    for name in ("alone", "copies"):
        shutil.rmtree(source / name)
    assert split(source, "out", "--exact")[0] == 0
