"""Fixtures of the archives' tests: a small ImageNet as an image folder, and its conversion."""

from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the indexes of this session out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
