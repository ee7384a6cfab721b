"""A checkpoint's labels mean the classes that it was trained with; other classes are rejected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from main import cli
from tests.image_files import make_shards
from tests.runs import small_yaml

pytestmark = pytest.mark.slow


def test_other_classes_are_rejected(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder, max_duration="1ep")
    assert cli([str(yaml), "run_name=first"]) == 0
    other = shutil.copytree(image_folder, workdir / "other")
    for split in ("train", "val"):
        (other / split / "cat").rename(other / split / "eel")  # dog is label 0 now
    words = ["load_path=runs/first/checkpoints/best-rank0.pt", f"eval_dataset.path={other}"]
    for more in (["is_train=false"], [f"train_dataset.path={other}", "max_duration=2ep", "run_name=second"]):
        assert cli([str(yaml), *words, *more]) == 1
        said = capsys.readouterr().err
        assert "label 0 was 'cat' and is 'dog'" in said and "model.weights=runs/first/checkpoints/best-rank0.pt" in said
    tuning = [f"train_dataset.path={other}", "load_weights_only=true", "run_name=tuned"]
    assert cli([str(yaml), *words, *tuning]) == 0


def test_invalid_class_lists(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Malformed, or too short for the stored labels: both give a sentence before a label reaches the loss."""
    make_shards(image_folder, workdir / "shards")
    yaml = small_yaml(workdir, workdir / "shards", max_duration="1ep", save_folder=None)
    sections = ("train_dataset", "eval_dataset")
    words = [f"{section}.{word}" for section in sections for word in ("is_streaming=true", f"local={workdir}/shards")]
    for content, said in (("{nonsense", "classes.json: is not a list of class names"), ('["cat", "dog"]', "class 2")):
        (workdir / "shards/classes.json").write_text(content)
        assert cli([str(yaml), *words, "model.num_classes=2"]) in (1, 2)
        assert said in capsys.readouterr().err
