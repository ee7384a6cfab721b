"""What all tests share: few threads, no network, small pictures, and runs made in a folder of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.s3 import moto_server, s3_server

__all__ = ["moto_server", "pictures", "s3_server", "workdir"]

# Two cores carry the tests: ranks and loader workers must not each start a thread per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("PYTHONFAULTHANDLER", "1")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageFolder of three classes: 16 pictures of 32 px each for training, 7 each for evaluation."""
    from tests.pictures import make_imagefolder

    root = make_imagefolder(tmp_path_factory.mktemp("pictures"), per_class=16)
    for surplus in (root / "val").glob("*/*.jpeg"):
        if int(surplus.stem) >= 7:
            surplus.unlink()  # 21 pictures: no number of ranks or batches divides them evenly
    return root


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that runs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
