"""Fixtures of the tests of programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.image_files import make_imagefolder
from tests.runs import run_main, small_yaml

WNIDS = {"n01440764": "tench", "n02123045": "tabby", "n02123159": "tiger cat"}
"""Three of ImageNet's classes and their names."""


@pytest.fixture(scope="session")
def named_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a short run on three of ImageNet's classes, 8 images each in data/val; tests do not write to it."""
    folder = tmp_path_factory.mktemp("named")
    data = make_imagefolder(folder / "data", classes=tuple(WNIDS), per_class=8, size=40)
    done = run_main(small_yaml(folder, data, max_duration="1ep"), "run_name=it", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "it"
