"""What the loaders' tests share: one image folder, and the same pictures as shards."""

from pathlib import Path

import pytest

from tests.pictures import make_imagefolder, make_shards


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails is given up in seconds; the programs that tests start keep their half minute."""
    for name, seconds in {"PATIENCE": 6.0, "FIRST_PATIENCE": 3.0, "READ_TIMEOUT": 3.0, "CONNECT_TIMEOUT": 2.0}.items():
        monkeypatch.setattr(f"loaders.remote.{name}", seconds)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 pictures in train/ and val/ each."""
    return make_imagefolder(tmp_path_factory.mktemp("folder"), per_class=20)


@pytest.fixture(scope="session")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as uncompressed MDS, several shards per split."""
    return make_shards(folder, tmp_path_factory.mktemp("shards"), size_limit=16_000)


@pytest.fixture(scope="session")
def compressed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as zstd-compressed MDS, several shards per split."""
    return make_shards(folder, tmp_path_factory.mktemp("compressed"), size_limit=16_000, compression="zstd:3")
