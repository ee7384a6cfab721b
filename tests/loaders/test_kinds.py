"""The table of storage kinds: its places exist, and a class from elsewhere is one more row."""

from __future__ import annotations

import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError, DataError
from config import load
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.images.decoders import DECODERS
from loaders.images.opened import Opened
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.kinds import KINDS, kind_at, kind_of
from loaders.workers import WorkerLoader

PIPELINE = EvaluationPipeline(-1, 8)
HERE = f"{__name__}:Grays"


class Grays(ImageDataset):
    """Two images and their labels, for the classes in `path`."""

    def __init__(self, path: str, split: str, pipeline: EvaluationPipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        self.classes, self.split = Path(path).name.split("-"), split

    def __len__(self) -> int:
        return 2

    def name_of(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return np.full((8, 8, 3), 100 + index, np.uint8), index


@pytest.mark.parametrize("name", KINDS)
def test_row(name: str) -> None:
    """What a row names can be imported, and its class takes the arguments that the row gives it."""
    row = KINDS[name]
    if row.dataset:
        cls = pkgutil.resolve_name(row.dataset)
        assert issubclass(cls, ImageDataset)
        inspect.signature(cls).bind(*row.arguments)
    assert row.loader is None or issubclass(pkgutil.resolve_name(row.loader), WorkerLoader)
    assert row.requires is None or callable(pkgutil.resolve_name(row.requires))
    assert row.dataset or row.arguments == ("source",)


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_row(name: str) -> None:
    assert issubclass(pkgutil.resolve_name(DECODERS[name].opened), Opened)


def test_defaults_and_marks(tmp_path: Path) -> None:
    assert (kind_of(None), kind_of(None, True)) == (KINDS["imagefolder"], KINDS["streaming"])
    assert kind_at(tmp_path, "val") is None
    (tmp_path / "val").mkdir()
    (tmp_path / "val/index.json").touch()
    assert kind_at(tmp_path, "val") == "streaming" and kind_at(tmp_path, "train") is None
    (tmp_path / "train.beton").touch()
    assert kind_at(tmp_path, "train") == "ffcv"


def test_class_from_elsewhere(tmp_path: Path) -> None:
    """The configuration accepts it, for a path that no other kind reads, and the loader builds it."""
    run = ["yamls/digits.yaml", f"train_dataset.storage={HERE}", "train_dataset.path=hub://cat-dog"]
    assert load(run).config.train_dataset.storage == HERE
    with pytest.raises(ConfigError, match=rf"train_dataset.storage: {HERE} reads no MDS shards"):
        load([*run, "train_dataset.is_streaming=true", f"train_dataset.local={tmp_path}"])
    spec = build_imagenet_dataspec("hub://cat-dog", False, 2, is_train=False, storage=HERE, crop_size=8, num_workers=0)
    assert (spec.dataloader.dataset.classes, spec.dataloader.dataset.split) == (["cat", "dog"], "val")
    ((images, labels),) = spec.dataloader
    assert labels.tolist() == [0, 1] and images[:, 0, 0, 0].tolist() == [100, 101]


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("strming", "storage: strming given, but it must be imagefolder, .*; did you mean streaming?"),
        ("packed:", "storage: packed: given, but it must be imagefolder, .*; did you mean packed?"),
        ("nowhere.at_all:Grays", "storage=nowhere.at_all:Grays: there is no module nowhere; .*import nowhere.at_all"),
        (f"{__name__}:Gray", f"storage={__name__}:Gray: {__name__} has no Gray; did you mean Grays?"),
    ],
)
def test_unknown_kind(storage: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        build_imagenet_dataspec(".", False, 2, storage=storage, num_workers=0)
