"""Keys of a data section: preload copies first, storage selects the kind, conflicting keys are rejected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from config import ConfigError, load
from main import cli
from tests.image_files import make_shards
from tests.runs import metrics, small_yaml
from tools.convert.__main__ import main as convert

pytestmark = pytest.mark.slow


def test_every_kind_trains_the_same_run(workdir: Path, image_folder: Path) -> None:
    assert convert([str(image_folder), "beton", "--to", "ffcv", "--workers", "1"]) == 0
    source = shutil.copytree(image_folder, workdir / "source")
    yaml = small_yaml(workdir, image_folder, max_duration="1ep", save_folder=None)

    def both(**values: object) -> list[str]:
        return [
            f"{section}.{key}={value}" for section in ("train_dataset", "eval_dataset") for key, value in values.items()
        ]

    kinds = {
        "folder": [],
        "packed": both(storage="packed"),
        "preloaded": both(path=source, preload="copy"),
        "ffcv": both(path="beton", storage="ffcv"),
    }
    losses = {}
    for name, words in kinds.items():
        assert cli([str(yaml), f"run_name={name}", *words]) == 0
        (row,) = metrics(workdir / "runs" / name)
        losses[name] = row["train_loss"], row["val_loss"]
    # A conversion shuffles train/ once, so ffcv has another order of the same images.
    assert losses.pop("ffcv") and len(set(losses.values())) == 1 and (workdir / "copy/train/cat").is_dir()


def test_preloaded_shards_are_read_in_place(workdir: Path, image_folder: Path) -> None:
    make_shards(image_folder, workdir / "shards", size_limit=16_000, compression="zstd:3")
    yaml = small_yaml(workdir, workdir / "shards", max_duration="1ep", save_folder=None)
    words = [
        f"{section}.{word}"
        for section in ("train_dataset", "eval_dataset")
        for word in ("is_streaming=true", "preload=copy")
    ]
    assert cli([str(yaml), "run_name=one", *words]) == 0
    assert list((workdir / "copy/train").glob("*.mds*"))


def test_synthetic_images_need_no_path(workdir: Path, image_folder: Path) -> None:
    yaml = small_yaml(workdir, image_folder, max_duration="2ba", save_folder=None)
    words = [
        f"{section}.{word}"
        for section in ("train_dataset", "eval_dataset")
        for word in ("storage=synthetic", "path=null")
    ]
    assert cli([str(yaml), "run_name=noise", *words]) == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["train_dataset.storage=tape"], "train_dataset.storage: tape given, but it must be imagefolder, streaming"),
        (["train_dataset.storage=pack"], "did you mean packed?"),
        (["train_dataset.storage=streaming"], "type train_dataset.is_streaming=true train_dataset.local=/tmp/cache"),
        (["eval_dataset.storage=ffcv", "eval_dataset.is_streaming=true", "eval_dataset.local=x"], "ffcv reads no MDS"),
        (["train_dataset.pack_size=100"], "train_dataset.pack_size: only for storage packed"),
        (["train_dataset.storage=packed", "train_dataset.pack_size=8"], "pack_size=16 or more"),
        (["train_dataset.storage=synthetic", "train_dataset.preload=x"], "have no source to copy"),
        (["train_dataset.storage=dali", "algorithms.randaugment={}"], "dali cannot run randaugment"),
        (["train_dataset.storage=dali", "algorithms.augmix={}"], "dali cannot run augmix"),
        (["train_dataset.storage=dali", "recipe_name=hot"], "type algorithms.randaugment=null"),
        (["train_dataset.storage=dali", "algorithms.colout.batch=false"], "dali cannot run colout"),
    ],
)
def test_conflicting_keys(words: list[str], said: str, workdir: Path, image_folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load([str(small_yaml(workdir, image_folder)), *words])
    assert said in str(caught.value)


@pytest.mark.parametrize("storage", ["imagefolder", "packed", "ffcv", "synthetic"])
@pytest.mark.parametrize("recipe", ["baseline", "mild", "medium", "hot"])
def test_every_recipe_accepts_every_kind_except_dali(recipe: str, storage: str) -> None:
    """The table of docs/data.md, checked by the configuration."""
    words = ["yamls/resnet50.yaml", f"recipe_name={recipe}", f"train_dataset.storage={storage}", "dry_run=true"]
    assert load(words).config.train_dataset.storage == storage
    if recipe != "hot":
        load([*words[:2], "train_dataset.storage=dali", "dry_run=true"])
