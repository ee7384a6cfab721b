"""Labels mean the classes that a checkpoint was trained with, or the run is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from main import cli
from tests.runs import small_yaml


def test_other_classes_are_refused(workdir: Path, pictures: Path, capsys: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, pictures, max_duration="1ep")
    assert cli([str(yaml), "run_name=first"]) == 0
    other = shutil.copytree(pictures, workdir / "other")
    for split in ("train", "val"):
        (other / split / "cat").rename(other / split / "eel")  # dog is label 0 now
    words = ["load_path=runs/first/checkpoints/best-rank0.pt", f"eval_dataset.path={other}"]
    for more in (["is_train=false"], [f"train_dataset.path={other}", "max_duration=2ep", "run_name=second"]):
        assert cli([str(yaml), *words, *more]) == 1
        said = capsys.readouterr().err
        assert "label 0 was 'cat' and is 'dog'" in said and "load_weights_only=true" in said
    tuning = [f"train_dataset.path={other}", "load_weights_only=true", "run_name=tuned"]
    assert cli([str(yaml), *words, *tuning]) == 0
