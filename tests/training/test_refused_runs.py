"""Follow the advice of rejected runs until they train."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.lock_file import LockFile
from main import cli
from tests.following import assert_advice_trains, for_both
from tests.image_files import make_shards
from tests.runs import small_yaml

pytestmark = pytest.mark.slow

CHANGES = {
    "max_duration": "1ba",
    "scheduler__t_warmup": "0ba",
    "save_folder": None,
    "train_dataset__num_workers": 0,
    "eval_dataset__num_workers": 0,
}
FIRST = ["run_name=first", "max_duration=1ba"]
SAVING = "save_folder={runs_folder}/{run_name}/checkpoints"
CHECKPOINT = "runs/first/checkpoints/ep0-ba1-rank0.pt"
Mistake = Callable[[Path, Path, Path], list[str]]
"""From a new folder, the images and the folder of the run `first`: make a mistake and return its words."""


def words(*said: str) -> Mistake:
    """A mistake on the command line only."""
    return lambda *_: list(said)


def trained(*said: str) -> Mistake:
    """A mistake that involves `first`, a run trained for one batch; saves checkpoints, unlike the others."""

    def start(folder: Path, image_folder: Path, first: Path) -> list[str]:
        shutil.copytree(first, folder / "runs/first", symlinks=True)
        return [SAVING, *said]

    return start


def in_the_way(name: str, *said: str) -> Mistake:
    """A mistake with a file where a folder is needed."""

    def write(folder: Path, image_folder: Path, first: Path) -> list[str]:
        (folder / name).write_text("in the way")
        return list(said)

    return write


def shards(*said: str) -> Mistake:
    """A mistake about the shards in the folder `shards`, which name no classes."""

    def write(folder: Path, image_folder: Path, first: Path) -> list[str]:
        make_shards(image_folder, folder / "shards")
        return list(said)

    return write


MISTAKES: dict[str, Mistake] = {
    "classes": words("model.num_classes=10"),
    "labels": shards(*for_both("path=shards", "is_streaming=true", "local=cache"), "model.num_classes=2"),
    "batch": words("train_dataset.batch_size=64"),
    "warm-up in another unit": words("max_duration=2ba", "scheduler.t_warmup=1ep"),
    "device": words("device=gpu"),
    "precision": words("precision=amp_bf16"),
    "not streaming": shards(*for_both("path=shards")),
    "streaming": words(*for_both("is_streaming=true", "local=cache")),
    "remote cache": shards(*for_both("path=shards", "is_streaming=true", "local=s3://bucket/cache")),
    "blurpool": words("algorithms.blurpool.min_channels=100000", "algorithms.blurpool.replace_maxpools=false"),
    "too late": words("max_duration=2ba", "algorithms.ema={update_interval: 4ba}"),
    "name": trained(*FIRST),
    "other values": trained(*FIRST, "autoresume=true", "optimizer.lr=0.07"),
    "checkpoints": trained("run_name=second", "save_folder=runs/first/checkpoints"),
    "nothing left": trained("run_name=second", f"load_path={CHECKPOINT}"),
    "folder": trained("run_name=second", "max_duration=2ba", "load_path=runs/first"),
    "warm-up": trained("run_name=second", f"load_path={CHECKPOINT}", "max_duration=4ba", "scheduler.t_warmup=4ba"),
    "swa too late": words("max_duration=2ep", "algorithms.swa.swa_start=0.5dur", "algorithms.swa.update_interval=1ba"),
    "runs_folder": in_the_way("file", "runs_folder=file"),
    "file": in_the_way("file", "runs_folder=.", "run_name=file"),
    "save_folder": in_the_way("file", "save_folder=file/checkpoints"),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Folder of a run trained for one batch, with its checkpoint."""
    folder = tmp_path_factory.mktemp("first")
    assert cli([str(small_yaml(folder, image_folder, **CHANGES)), *FIRST, SAVING, f"runs_folder={folder}"]) == 0
    return folder / "first"


@pytest.mark.filterwarnings("ignore:SWA has known issues")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_advice_makes_the_run_train(
    mistake: str, workdir: Path, image_folder: Path, first: Path, capfd: pytest.CaptureFixture
) -> None:
    def start(folder: Path) -> list[str]:
        return [str(small_yaml(folder, image_folder, **CHANGES)), *MISTAKES[mistake](folder, image_folder, first)]

    assert_advice_trains(start, named, workdir, capfd)


def test_a_run_that_is_in_use(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def start(folder: Path) -> list[str]:
        held.append(LockFile(folder / "runs/mine"))
        return [str(small_yaml(folder, image_folder, **CHANGES)), "run_name=mine"]

    monkeypatch.setattr("training.record.ENDING", 0.0)
    assert_advice_trains(start, named, workdir, capfd)
    assert len(held) == 2


def test_a_machine_without_a_compiler(
    workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.devices.shutil.which", lambda _: None)
    yaml = small_yaml(workdir, image_folder, **CHANGES)
    assert_advice_trains(lambda _: [str(yaml), "compile=true"], named, workdir, capfd)


def named(word: str) -> str:
    """Fill in the placeholder in a word of advice."""
    for placeholder, name in {"FOLDER": "elsewhere", "ANOTHER": "another", "CHECKPOINT": CHECKPOINT}.items():
        word = word.replace(f"={placeholder}", f"={name}")
    return re.sub(r"=/(some|a)/[a-z/]+", "=cache", word)
