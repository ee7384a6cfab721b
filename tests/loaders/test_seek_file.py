"""Seek tables of image folders: used if they fit, otherwise ignored with one remark, and never a wrong pixel."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.images.native import Encoded
from loaders.images.transforms import EvaluationPipeline, Pipeline, TrainingPipeline
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.inspection import inspect
from loaders.storage.seek_file import SeekFile, candidates, read_file
from tests.image_files import make_imagefolder
from tests.loaders.jpegs import PHOTO, built, jpeg, odd_images
from tools.seek.__main__ import main as seek

pytestmark = built

ODD_NAMES = (b"a b.jpeg", b"new\nline.jpeg", b"\xff\xfe.jpeg", "bird é.jpeg".encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photographs of two classes, with odd names, odd kinds and a nested folder, and their tables."""
    root = make_imagefolder(tmp_path / "set", per_class=2, size=60)
    for split in ("train", "val"):
        cat = root / split / "cat"
        for number, name in enumerate(ODD_NAMES):
            data = jpeg(PHOTO[20 * number :, 30 * number :], quality=70 + number)
            Path(os.fsdecode(os.fsencode(cat) + b"/" + name)).write_bytes(data)
        (cat / "nested").mkdir()
        (cat / "nested" / "deep.jpeg").write_bytes(jpeg(PHOTO[:200, :300]))
        for name, data in odd_images().items():
            (cat / name).write_bytes(data)
    assert seek([str(root), "--every", "4"]) == 0
    return root


def opened(root: Path, pipeline: Pipeline | None = None) -> ImageFolderDataset:
    return ImageFolderDataset(root, "train", pipeline or TrainingPipeline(-1, 48, decoder="native"), seed=5)


def with_tables(data: ImageFolderDataset) -> set[str]:
    """Names of the images that are decoded with a table."""
    return {
        os.path.basename(data.name_of(index))
        for index in range(len(data))
        if isinstance(data.borrow(index)[0], Encoded)
    }


def assert_same_pixels(root: Path) -> None:
    """The batches are those of the folder without tables."""
    for pipeline in (TrainingPipeline(-1, 48, decoder="native"), EvaluationPipeline(60, 48, "native")):
        found, expected = opened(root, pipeline), opened(root, pipeline)
        expected.tables = None
        keys = [(1, index) for index in range(len(found))]
        assert torch.equal(found.__getitems__(keys).images, expected.__getitems__(keys).images)
        assert all(torch.equal(found[key][0], expected[key][0]) for key in keys)


def test_tables_are_used(root: Path) -> None:
    data = opened(root)
    without = {"CMYK.jpeg", "progressive.jpg", "named.jpeg", "image.webp", "image.bmp"}
    without |= {name for name in odd_images() if name.endswith(".png")}
    names = {os.path.basename(data.name_of(index)) for index in range(len(data))}
    assert with_tables(data) == names - without and len(names - without) > 8
    assert data.remark() is None
    assert_same_pixels(root)
    for index in range(len(data)):
        path = data.path_of(index)
        assert data.read(index)[0] == path.read_bytes() == read_file(path)[0]


def test_other_decoders_do_not_open_them(root: Path) -> None:
    assert opened(root, TrainingPipeline(-1, 48, decoder="pil")).tables is None


def touch(root: Path) -> None:
    (root / "train/cat/nested/deep.jpeg").touch()


def replace(root: Path) -> None:
    (root / "train/cat/nested/deep.jpeg").write_bytes(jpeg(PHOTO[::-1]))


def add(root: Path) -> None:
    (root / "train/cat/another.jpeg").write_bytes(jpeg(PHOTO))


def add_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "ant").mkdir()
        (root / split / "ant" / "first.jpeg").write_bytes(jpeg(PHOTO))


CHANGES = {touch: "deep.jpeg", replace: "deep.jpeg", add: "another.jpeg", add_class: "first.jpeg"}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder(change: Callable[[Path], None], root: Path) -> None:
    """All other tables are used, and one remark names the command that renews them."""
    before, stale = with_tables(opened(root)), CHANGES[change]
    change(root)
    data = opened(root)
    assert with_tables(data) == before - {stale}
    remark = data.remark()
    assert f"{root}/train.seek: out of date. Of {len(data)} images 1 is new or has changed" in remark
    assert remark.endswith(f"Type: python -m tools.seek {root} --every 4")
    assert_same_pixels(root)
    assert seek([str(root), "--every", "4"]) == 0
    data = opened(root)
    assert with_tables(data) == before | {stale} and data.remark() is None


def test_removed_images(root: Path) -> None:
    for name in ("deep.jpeg",):
        (root / "train/cat/nested" / name).unlink()
    assert opened(root).remark() is None
    assert_same_pixels(root)


def test_other_bytes_of_the_same_size_and_time(root: Path) -> None:
    """The checksum notices, and so does verify."""
    path = root / "train/cat/nested/deep.jpeg"
    data, status = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert opened(root).remark() is None and "deep.jpeg" in with_tables(opened(root))
    assert_same_pixels(root)
    assert any(
        "deep.jpeg: its seek table is another image's, or damaged. Type: rm" in f for f in inspect(str(root), None)[1]
    )


def test_damaged_files(root: Path) -> None:
    """Cut anywhere, or with any byte changed: decoded without, or with the tables that are right."""
    path, rng = root / "train.seek", random.Random(0)
    whole = path.read_bytes()
    for cut in [*range(0, 100, 7), len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:cut])
        data = opened(root)
        assert not with_tables(data) and data.remark().endswith(f"to make them again: python -m tools.seek {root}")
    path.write_bytes(whole + b"\0")
    assert not with_tables(opened(root))
    for place in [*range(24), *rng.sample(range(24, len(whole)), 30)]:
        changed = bytearray(whole)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        assert_same_pixels(root)
    path.unlink()
    path.mkdir()
    assert opened(root).remark() is None
    assert_same_pixels(root)


def test_a_read_only_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "val"):
        (root / f"{split}.seek").unlink()
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).startswith(str(root)))
    assert seek([str(root)]) == 0
    assert "is read-only; the tables are in" in capsys.readouterr().out
    beside, cached = candidates(root / "train")
    assert not beside.exists() and cached.parent == tmp_path / "cache/resnet-recipes/seek"
    assert with_tables(opened(root)) and opened(root).remark() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert not with_tables(opened(root))


@pytest.mark.slow
def test_a_loader_with_workers(root: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(root, plain)
    for split in ("train", "val"):
        (plain / f"{split}.seek").unlink()
    batches = []
    for folder in (root, plain):
        spec = build_imagenet_dataspec(folder, False, 5, crop_size=40, num_workers=2, decoder="native")
        batches.append([images for images, _ in spec.dataloader])
    assert len(batches[0]) == len(batches[1]) > 2
    assert all(torch.equal(found, expected) for found, expected in zip(*batches, strict=True))


def test_a_file_that_cannot_be_read(root: Path) -> None:
    data = opened(root)
    index = next(index for index in range(len(data)) if data.name_of(index).endswith("deep.jpeg"))
    Path(data.name_of(index)).unlink()
    for read in (data.read, data.borrow):
        with pytest.raises(DataError, match=r"deep\.jpeg: cannot be read \(No such file or directory\)\. Was it moved"):
            read(index)
    assert data.remark() is None


def test_lookup_by_name(root: Path) -> None:
    file = pickle.loads(pickle.dumps(SeekFile(root / "train.seek")))
    assert file.every == 4 and np.array_equal(file.places(file.keys), np.arange(len(file.keys)))
    assert np.array_equal(file.places(file.keys[::-1]), np.arange(len(file.keys))[::-1])
    assert file.places(np.array([3, file.keys[2], 2**64 - 1], np.uint64)).tolist() == [-1, 2, -1]
