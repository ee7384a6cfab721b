"""Fixtures of the archives' tests: a small ImageNet as an image folder, and its conversion."""

from pathlib import Path

import pytest

from tests.archives.layouts import converted, make_folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image folder that all other forms hold."""
    return make_folder(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def expected(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the shards converted from `plain`."""
    return converted(plain, tmp_path_factory.mktemp("expected") / "mds")
