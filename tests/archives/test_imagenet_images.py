"""What the images of ImageNet's copies tell by their names and bytes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.errors import DataError
from loaders.archives.forms import ReadOptions, open_copy
from loaders.storage.inspection_jobs import look
from loaders.storage.inspection_splits import Split, open_folder
from tests.archives.layouts import CLASSES, samples
from tests.archives.test_imagenet import make
from tests.s3 import upload
from tools.convert.sources import open_sources
from tools.verify.__main__ import run as verify
from tools.verify.compare import kind_of_copy


def test_an_image_in_the_folder_of_another_class_is_named(plain: Path, tmp_path: Path) -> None:
    root = shutil.copytree(plain, tmp_path / "images")
    first = min((root / "train" / CLASSES[1]).iterdir())
    first.rename(root / "train" / CLASSES[2] / first.name)
    with pytest.raises(DataError, match=f"{CLASSES[2]}/{first.name}: its name says {CLASSES[1]}. Move it"):
        open_sources(str(root), None)


def test_an_image_of_a_tree_is_named_by_its_path(plain: Path, tmp_path: Path) -> None:
    copy = open_copy(str(make("kaggle", plain, tmp_path)), ReadOptions())
    assert copy is not None
    for catalog in copy.splits.values():
        assert Path(catalog.name_of(0)).read_bytes() == catalog.read(0)


def encoded(mode: str, kind: str) -> bytes:
    held = io.BytesIO()
    Image.new(mode, (30, 20)).save(held, kind)
    return held.getvalue()


ODD = {"n02105855_2933.JPEG": ("RGB", "PNG"), "n13037406_4650.JPEG": ("CMYK", "JPEG")}


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (2, "1 PNG and 1 CMYK image, as in the original."),
        (1, "1 PNG and 0 CMYK images; the original has 1 and 23, so that this is a re-encoded copy."),
        (0, None),
    ],
)
def test_the_odd_files_tell_what_kind_of_copy_it_is(kept: int, said: str | None, tmp_path: Path) -> None:
    """The images keep their kinds, or the second is an ordinary JPEG, or neither is there."""
    folder, images = tmp_path / "train/n02105855", {"n02105855_1.JPEG": ("RGB", "JPEG")}
    images |= {} if kept == 0 else ODD if kept == 2 else ODD | {"n13037406_4650.JPEG": ("RGB", "JPEG")}
    for name, (mode, kind) in images.items():
        path = folder.with_name(name[:9]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(mode, kind))
    (split,), _ = open_folder(tmp_path)
    for job in split.jobs:
        split.add(job, look(job))
    split.finish()
    assert kind_of_copy([split]) == said


def test_a_whole_imagenet_tells_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.verify.compare.IMAGENET_IMAGES", {"train": 30, "val": 2})
    splits = [Split(name, [], count, None, str) for name, count in (("train", 30), ("val", 2))]
    splits[0].sizes = [(500, 375), (4000, 3000)]
    assert "0 PNG and 0 CMYK images; the original has 1 and 23, so that this is a re-enc" in str(kind_of_copy(splits))
    splits[0].odd.update({("PNG", None): 1, ("CMYK", None): 23})  # as in shards, where images have no names
    assert kind_of_copy(splits) == "1 PNG and 23 CMYK images, as in the original."
    splits[0].sizes = [(500, 375)]
    assert "no side is longer than 500 pixels, so that this is a resized copy" in str(kind_of_copy(splits))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "/ILSVRC/Data/CLS-LOC"])
def test_kaggles_tree_in_a_store(folder: str, plain: Path, s3_server: str, tmp_path: Path) -> None:
    make("kaggle", plain, tmp_path)
    copy = open_copy(upload(tmp_path, "photos", "kaggle") + folder, ReadOptions())
    assert copy is not None and copy.headline.endswith("5 classes; labels of val/ from LOC_val_solution.csv")
    for split, catalog in copy.splits.items():
        found = [(catalog.read(at), CLASSES[catalog.labels[at]]) for at in range(len(catalog))]
        assert found == [(data, one) for _, data, one in samples(plain, split)]


@pytest.mark.slow
def test_verify_says_once_that_it_is_not_all_of_imagenet(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("tools.verify.compare.IMAGENET_IMAGES", {"train": 40, "val": 21})
    monkeypatch.setattr("tools.verify.compare.IMAGENET_CLASSES", 5)
    (tmp_path / "data").mkdir()
    assert verify([str(make("archives", plain, tmp_path / "data")), "--workers", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("not all of") == 1 and "This looks like ImageNet-1k, but is not all of it:" in said
