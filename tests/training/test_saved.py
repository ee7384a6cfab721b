"""Checkpoints are read as data: code anywhere in a file is named in the error and does not run."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.folders import LocalFolder
from config.load import as_shipped, recipe_files
from config.schema import MODELS
from main import cli
from model import build_composer_resnet
from tests.pretrained import resnet18
from tests.runs import small_yaml
from tools.evaluate.__main__ import run as evaluate
from training.loading import recognized, shapes
from training.saved import CheckpointError, NotDataError, read_checkpoint, read_file


class Program:
    """Makes a folder `ran` when Python unpickles it."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("ran",)


PLACES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "all of it": lambda _content: Program(),
    "next to the state": lambda content: {**content, "more": Program()},
    "among the weights": lambda content: {"state": {"model": {**content["state"]["model"], "module.x": Program()}}},
    "random state": lambda content: {**content, "rng": [{"python": (3, [Program()])}]},
    "a key": lambda content: {**content, ("deep", (Program(),)): 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Checkpoint of a run of two batches."""
    folder = tmp_path_factory.mktemp("trained")
    here = Path.cwd()
    os.chdir(folder)
    assert cli([str(small_yaml(folder, image_folder)), "run_name=it", "max_duration=2ba"]) == 0
    os.chdir(here)
    return folder / "runs/it/checkpoints/ep0-ba2-rank0.pt"


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_code_is_run(place: str, workdir: Path, trained: Path) -> None:
    torch.save(PLACES[place](read_file(trained, "it")), workdir / "evil.pt")
    with pytest.raises(NotDataError, match=r"it holds (posix\.)?mkdir, which is not data.*load_unsafe_pickle=true"):
        read_checkpoint(LocalFolder("."), "evil.pt")
    assert not Path("ran").exists()
    read_file(Path("evil.pt"), "evil.pt", trusted=True)
    assert Path("ran").exists()


@pytest.mark.slow
def test_no_way_to_a_checkpoint_runs_it(
    workdir: Path, image_folder: Path, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    """load_path for training, weights and evaluation; a file next to a run's own; tools.evaluate."""
    yaml = str(small_yaml(workdir, image_folder, train_dataset__num_workers=0, eval_dataset__num_workers=0))
    evil = workdir / "runs/it/checkpoints/ep1-ba4-rank0.pt"
    evil.parent.mkdir(parents=True)
    (workdir / "runs/it/config.yaml").write_bytes((trained.parents[1] / "config.yaml").read_bytes())
    torch.save(PLACES["among the weights"](read_file(trained, "it")), evil)
    for words in (
        [f"load_path={evil}", "run_name=other"],
        [f"load_path={evil}", "run_name=other", "load_weights_only=true"],
        [f"load_path={evil}", "is_train=false"],
        ["run_name=it", "autoresume=true", "max_duration=2ba"],
    ):
        assert cli([yaml, *words]) == 1
        assert "mkdir, which is not data" in capsys.readouterr().err
    assert evaluate(["runs/it", f"--checkpoint={evil}"]) == 1
    assert "--load-unsafe-pickle" in capsys.readouterr().err
    assert not Path("ran").exists() and not (workdir / "runs/other").exists()
    cli([yaml, f"load_path={evil}", "is_train=false", "load_unsafe_pickle=true"])
    assert Path("ran").exists()


@pytest.mark.slow
def test_the_text_of_an_algorithm_is_not_run(
    workdir: Path, image_folder: Path, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    """Composer evaluates the text of algorithms listed in a checkpoint; ours treats it as data."""
    content = read_file(trained, "it")
    content["state"]["algorithms"] = [("BlurPool", {"repr": "BlurPool(min_channels=__import__('os').mkdir('ran'))"})]
    content["state"]["_algorithms"], content["state"]["_model"] = (content["state"][k] for k in ("algorithms", "model"))
    torch.save(content, workdir / "evil.pt")
    yaml = str(small_yaml(workdir, image_folder, eval_dataset__num_workers=0))
    assert cli([yaml, "load_path=evil.pt", "is_train=false"]) == 1
    assert "Type as well: algorithms.blurpool={}" in capsys.readouterr().err
    assert cli([yaml, "load_path=evil.pt", "is_train=false", "load_weights_only=true"]) == 1
    assert not Path("ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(recipe_files().keys() - {"decentralized"}))
def test_a_checkpoint_of_every_recipe_is_data(recipe: str, workdir: Path, image_folder: Path) -> None:
    """decentralized needs several ranks; tests/algorithms/test_decentralized.py reads its files."""
    yaml = small_yaml(
        workdir, image_folder, recipe_name=recipe, train_dataset__num_workers=0, eval_dataset__num_workers=0
    )
    words = ["run_name=it", "train_dataset.crop_size=16", "eval_dataset.resize_size=20", "max_duration=2ba"]
    words += ["eval_dataset.crop_size=16", "train_dataset.batch_size=12", "scheduler.t_warmup=1ba"]
    words += ["optimizer.lr=0.01", "seed=3"]
    soon = {"ema": "algorithms.ema.update_interval=1ba", "sam": "algorithms.sam.interval=1"}
    words += [soon[name] for name in as_shipped(recipe)["algorithms"] if name in soon]
    if as_shipped(recipe)["algorithms"].get("progressive_resizing", {}).get("sizes"):
        words += ["algorithms.progressive_resizing.sizes=[12,16]", "eval_dataset.crop_ratio=null"]
    starts = []
    if as_shipped(recipe)["model"]["weights"]:
        torch.save(resnet18(), "w.pth")
        starts = ["model.weights=w.pth"]
    assert cli([str(yaml), *words, *starts]) == 0
    last = "it/checkpoints/ep0-ba2-rank0.pt"
    assert read_checkpoint(LocalFolder("runs"), last).state["timestamp"]["Timestamp"]["batch"] == 2
    assert (
        cli([str(yaml), *words, f"load_path=runs/{last}", "max_duration=3ba", "run_name=more", "save_folder=null"]) == 0
    )


def test_files_that_are_not_checkpoints(workdir: Path) -> None:
    """Each is described as what it is, and as damaged only if it is truncated."""
    torch.save({"conv1.weight": torch.zeros(1)}, "bare.pt")
    torch.save({"conv1.weight": torch.zeros(1)}, "old.pt", _use_new_zipfile_serialization=False)
    torch.save([1, 2], "list.pt")
    torch.save({"state": 3}, "number.pt")
    Path("text.pt").write_text("hello")
    Path("empty.pt").touch()
    for name, said in (
        ("bare.pt", r"bare\.pt: is not a checkpoint written by this project; it holds bare weights \(conv1\.weight\)"),
        ("old.pt", "is not a checkpoint"),
        ("list.pt", "is not a checkpoint"),
        ("number.pt", "is not a checkpoint"),
        ("text.pt", "is not a checkpoint"),
        ("empty.pt", "is damaged"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read_checkpoint(LocalFolder("."), name)


def test_a_checkpoint_takes_no_more_memory_than_its_file(workdir: Path) -> None:
    """A compressed record, and many records that share one part of the file."""
    torch.save({"state": {"model": {"x": torch.zeros(100_000)}}}, "whole.pt")
    assert read_checkpoint(LocalFolder("."), "whole.pt").state["model"]["x"].numel() == 100_000
    with zipfile.ZipFile("whole.pt") as whole, zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for record in whole.infolist():
            bomb.writestr(record.filename, whole.read(record))
    with zipfile.ZipFile("overlaid.pt", "w") as overlaid:
        overlaid.writestr("a", bytes(1000))
        overlaid.filelist *= 9
    for name in ("bomb.pt", "overlaid.pt"):
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(LocalFolder("."), name)


class Remote(LocalFolder):
    """A folder whose files must be fetched; records the target folder and its permissions."""

    def fetch(self, name: str, into: Path) -> Path:
        """Copy the file."""
        self.into, self.mode = into, into.stat().st_mode & 0o777
        return Path(shutil.copy(self.path / name, into / name))


@pytest.mark.parametrize("whole", [True, False])
def test_a_remote_checkpoint_is_fetched_into_a_private_folder(whole: bool, workdir: Path) -> None:
    """A new folder without access for others, removed in any case."""
    torch.save({"state": {"model": {}}}, "far.pt")
    if not whole:
        Path("far.pt").write_bytes(Path("far.pt").read_bytes()[:99])
    places = []
    for _ in range(2):
        with contextlib.nullcontext() if whole else pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(folder := Remote("."), "far.pt")
        assert folder.mode == 0o700 and not folder.into.exists()
        places.append(folder.into)
    assert places[0] != places[1]


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_recognized(name: str) -> None:
    with torch.device("meta"):
        held = shapes(build_composer_resnet(name, num_classes=7).state_dict())
    assert recognized(held) == (name, 7)
    held.pop("module.layer1.0.conv1.weight")
    assert recognized({f"module.{key}": shape for key, shape in held.items()}) == (name, 7)
