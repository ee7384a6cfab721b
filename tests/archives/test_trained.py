"""Data sets in other forms are trained on as they are, with an image folder's pixels and an exact resume."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.archives import index_file
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.archives import ArchiveDataset
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.kinds import open_dataset
from loaders.transport.preload import copy
from tests.archives.layouts import make_folder_tar, make_tfrecord, make_webdataset, samples, write_tar
from tests.archives.test_imagenet import make

PIPELINE = EvaluationPipeline(-1, 16)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the indexes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/resnet-recipes/index"


@pytest.fixture(scope="module")
def tars(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WebDataset tars of the small ImageNet; not to be changed."""
    return make_webdataset(plain, tmp_path_factory.mktemp("wds") / "wds")


def opened(path: Path, split: str = "train") -> ArchiveDataset:
    """Open a data set as training does that names its path alone."""
    dataset = open_dataset(None, str(path), is_streaming=False, local=None, split=split, pipeline=PIPELINE, seed=3)
    assert isinstance(dataset, ArchiveDataset)
    return dataset


def batches(path: Path, workers: int, **options) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Load an epoch of a path."""
    options = {"batch_size": 5, "crop_size": 16, "seed": 3, "num_workers": workers, **options}
    return [(images.clone(), labels) for images, labels in build_imagenet_dataspec(path, False, **options).dataloader]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_path_alone_gives_an_image_folders_pixels(plain: Path, tars: Path, split: str) -> None:
    folder, dataset = ImageFolderDataset(plain, split, PIPELINE, seed=3), opened(tars, split)
    found = {dataset.name_of(at).split(", ")[1].removesuffix(".jpg"): at for at in range(len(dataset))}
    assert len(found) == len(folder) and dataset.class_names and dataset.class_names[0] == "tench"
    for at in range(len(folder)):
        pixels, label = dataset[found[folder.path_of(at).stem]]
        expected, wanted = folder[at]
        assert torch.equal(pixels, expected) and dataset.classes[label] == folder.classes[wanted]


@pytest.mark.parametrize("form", ["archives", "class tars", "kaggle", "table", "tar", "tfrecord"])
def test_a_seed_gives_an_image_folders_batches(form: str, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    if form == "table":
        path = shutil.copytree(plain, path / "photos").parent / "table.csv"
        lines = [
            f"photos/{split}/{one}/{name},{one},{split}"
            for split in ("train", "val")
            for name, _, one in samples(plain, split)
        ]
        path.write_text("\n".join(["path,label,split", *lines]))
    elif form == "tfrecord":
        make_tfrecord(plain, path)
    elif form == "tar":
        make_folder_tar(plain, path / "small.tar")
    else:
        path = make(form, plain, path)
    classes, folders = opened(path).classes, ImageFolderDataset(plain, "train", PIPELINE, seed=3).classes
    for found, expected in zip(batches(path, 0), batches(plain, 0), strict=True):
        assert torch.equal(found[0], expected[0])
        assert [classes[label] for label in found[1]] == [folders[label] for label in expected[1]]


@pytest.mark.slow
def test_workers_and_a_resumed_epoch_read_the_same_batches(tars: Path) -> None:
    whole = batches(tars, 0)
    for found, expected in zip(batches(tars, 2), whole, strict=True):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    spec = build_imagenet_dataspec(tars, False, 5, crop_size=16, seed=3, num_workers=1)
    dataset = spec.dataloader.dataset
    dataset.load_state_dict(dataset.state_dict(15, from_beginning=True))
    rest = list(spec.dataloader)
    assert len(rest) == len(whole) - 3
    for found, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_packed_reads_them_too(tars: Path) -> None:
    expected = batches(tars, 0, shuffle=False)
    for found, wanted in zip(batches(tars, 0, shuffle=False, storage="packed"), expected, strict=True):
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def test_an_index_is_built_once_and_again_after_a_change(
    tars: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tars)
    assert len(list(cache.glob("*.npz"))) == 1
    built, really = [], index_file.open_as
    monkeypatch.setattr(index_file, "open_as", lambda *given: (built.append(given), really(*given))[1])
    again = opened(tars)
    assert not built and again.catalog.files == first.catalog.files and again.classes == first.classes
    for name in ("file", "names", "offsets", "sizes", "labels"):
        assert np.array_equal(getattr(again.catalog, name), getattr(first.catalog, name))
    status = os.stat(tars / "imagenet1k-train-0000.tar")
    os.utime(tars / "imagenet1k-train-0000.tar", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    opened(tars)
    assert len(built) == 1
    for kept in cache.glob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:-200])
    opened(tars)
    assert len(built) == 2, "a damaged index must be built again"


def test_a_large_index_is_announced_once(
    tars: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(index_file, "LARGE", 0)
    opened(tars)
    opened(tars)
    assert capsys.readouterr().out.count("indexing its images, once") == 1


def test_a_preload_copies_them_whole_for_either_split(tars: Path, tmp_path: Path) -> None:
    destination = tmp_path / "copy"
    assert copy(str(tars), destination, ["train"]).copied_files == len(list(tars.iterdir()))
    assert copy(str(tars), destination, ["val"]).copied_files == 0
    assert len(opened(destination, "val")) == len(opened(tars, "val"))


def test_what_cannot_be_trained_on_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", [("a.jpg", b"x"), ("a.cls", b"0")])
    with pytest.raises(DataError, match=r"has no train and val\. To make them: python -m tools\.convert .*-mds --val"):
        opened(tmp_path)
    (tmp_path / "00000.tar").rename(tmp_path / "train-0.tar")
    assert len(opened(tmp_path)) == 1
    with pytest.raises(DataError, match="has no images of val, only of train"):
        opened(tmp_path, "val")
    write_tar(tmp_path / "train-0.tar", [("a.jpg", b"x"), ("a.txt", b"cat")])
    with pytest.raises(DataError, match=r"--label KEY\. Such options are tools\.convert's: python -m tools\..*-mds"):
        opened(tmp_path)
    write_tar(tmp_path / "train-0.tar", [("--label.jpg", b"x"), ("--label.cls", b"0"), ("--label.jpg", b"x")])
    with pytest.raises(DataError, match=r"--label\.jpg: is there twice\. Write the tar again\.$"):
        opened(tmp_path)
    write_tar(tmp_path / "train-0.tar.gz", [("a.jpg", b"x"), ("a.cls", b"0")], "w:gz")
    (tmp_path / "train-0.tar").unlink()
    with pytest.raises(DataError, match=r"would be slow\. Convert them: python -m tools\.convert"):
        opened(tmp_path)
    with pytest.raises(DataError, match="holds no archives"):
        ArchiveDataset(str(tmp_path.parent / "nowhere"), "train", PIPELINE, 0)
