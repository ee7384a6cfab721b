"""WebDataset tars are indexed where they lie, and converted like any data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from loaders.archives.forms import ReadOptions, open_copy
from loaders.class_names import imagenet
from tests.archives.layouts import CLASSES, contents, converted, make_webdataset, samples


def test_every_image_is_found_where_it_lies(plain: Path, tmp_path: Path) -> None:
    copy = open_copy(str(make_webdataset(plain, tmp_path / "wds")), ReadOptions())
    assert copy is not None and copy.classes == list(imagenet())
    for split, catalog in copy.splits.items():
        found = Counter((catalog.read(at), copy.classes[catalog.labels[at]]) for at in range(len(catalog)))
        assert found == Counter((data, one) for _, data, one in samples(plain, split))


@pytest.mark.slow
def test_a_conversion_holds_the_same_images(plain: Path, tmp_path: Path) -> None:
    converted(make_webdataset(plain, tmp_path / "wds"), tmp_path / "mds")
    labels = list(imagenet())
    for split in ("train", "val"):
        found = Counter((data, labels[label]) for data, label in contents(tmp_path / "mds", split))
        assert found == Counter((data, one) for _, data, one in samples(plain, split))
        assert {labels[label] for _, label in contents(tmp_path / "mds", split)} == set(CLASSES)
