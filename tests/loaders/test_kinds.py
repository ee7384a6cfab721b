"""The table of storage kinds: the classes that it names exist and take the arguments of their rows."""

from __future__ import annotations

import inspect
import pkgutil
from pathlib import Path

import pytest

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.images.decoders import DECODERS
from loaders.images.opened import Opened
from loaders.storage.kinds import KINDS, kind_at, kind_of
from loaders.workers import WorkerLoader


@pytest.mark.parametrize("name", KINDS)
def test_row(name: str) -> None:
    """What a row names can be imported, and its class takes the arguments that the row gives it."""
    row = KINDS[name]
    if row.dataset:
        cls = pkgutil.resolve_name(row.dataset)
        assert issubclass(cls, ImageDataset)
        inspect.signature(cls).bind(**dict.fromkeys(row.arguments))
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


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("strming", "storage: strming given, but it must be imagefolder, .*; did you mean streaming?"),
        ("packed:", "storage: packed: given, but it must be imagefolder, .*; did you mean packed?"),
    ],
)
def test_unknown_kind(storage: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        build_imagenet_dataspec(".", False, 2, storage=storage, num_workers=0)
