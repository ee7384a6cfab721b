"""Warnings before training about runs that are too short, or data too small, for their settings."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from config import load
from config.schema import Config
from main import cli
from recipes.algorithms._base import Length
from recipes.algorithms.ema import EMA
from recipes.algorithms.progressive_resizing import ProgressiveResizing
from tests.advice import ROOT, applied
from tests.runs import small_yaml
from training.small_data import FEW, smaller_batch, warning

RESNET50 = [str(ROOT / "yamls/resnet50.yaml"), "dry_run=true"]


def configured(*words: str) -> Config:
    return load([*RESNET50, *words]).config


@pytest.mark.parametrize(
    ("words", "images", "advice"),
    [
        ([], 400, "train_dataset.batch_size=32 optimizer.lr=0.032 scheduler.t_warmup=0.05dur"),
        (["recipe_name=mild"], 20_000, "train_dataset.batch_size=2048 optimizer.lr=2.05 scheduler.t_warmup=0.05dur"),
        (["scheduler.t_warmup=1ep"], 400, "train_dataset.batch_size=32 optimizer.lr=0.032"),
        (["recipe_name=onecycle", "optimizer.lr=1.4"], 100, "train_dataset.batch_size=16 optimizer.lr=0.05"),
        (["recipe_name=adam"], 100, "train_dataset.batch_size=16 scheduler.t_warmup=0.05dur"),
        (
            ["recipe_name=sgd", "optimizer.lr=1.024", "scheduler.t_warmup=0ep"],
            9,
            "train_dataset.batch_size=9 optimizer.lr=0.009",
        ),
    ],
)
def test_batch_learning_rate_and_warm_up_change_together(words: list[str], images: int, advice: str) -> None:
    assert smaller_batch(configured(*words), images, ranks=1) == advice


@pytest.mark.parametrize("ranks", [1, 3, 8])
@pytest.mark.parametrize("images", [10, 80, 400, 8000])
def test_the_advice_ends_the_warning(images: int, ranks: int) -> None:
    config = configured()
    config.train_dataset.batch_size = images
    said = warning(config, images, 1, ranks)
    if images <= 16:
        assert said is None  # a smaller batch would not be better
        return
    assert said and "leave 1 step per epoch" in said
    given = configured(*smaller_batch(config, images, ranks).split())
    steps = images // given.train_dataset.batch_size
    assert given.train_dataset.batch_size % ranks == 0 and steps >= FEW
    assert warning(given, images, steps, ranks) is None


def test_enough_steps() -> None:
    assert warning(configured(), 4 * 2048, FEW, 1) is None


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ({"half_life": "100ba", "update_interval": "20ba"}, "66%"),  # as published, in 60 batches
        ({"half_life": "2ep"}, "3%"),
        ({"half_life": None, "smoothing": 0.99}, "55%"),
        ({"half_life": None, "decay": 0.998, "update_interval": "1ba"}, "46%"),  # 1 - .002 * 64 / 10 epochs, 60 times
        ({"half_life": "10ba", "ema_start": "0.5dur"}, "12%"),
        ({"half_life": "5ba"}, None),
        ({"half_life": "1ba", "ema_start": "55ba"}, "3%"),
    ],
)
def test_an_average_of_untrained_weights(arguments: dict, share: str | None) -> None:
    length = Length(batches=60, batches_per_epoch=6, batch_size=64, last=0.9)
    found = EMA(**arguments).shortfall(length)
    if share is None:
        assert found is None
        return
    assert found and found[0] == f"{share} of the final average are the weights with which it starts"
    if found[1] is None:
        assert length.batches - EMA(**arguments).ema_start.value < 7  # even the shortest average holds its start
        return
    better = {name: None if value == "null" else value for name, value in found[1].items()}
    assert EMA(**{**arguments, **better}).shortfall(length) is None


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 36])
@pytest.mark.parametrize("delay", [0.2, 0.4])
def test_images_that_stay_small(epochs: int, delay: float) -> None:
    """The size changes between epochs only, so a run of few epochs never reaches the last one."""
    length = Length(10 * epochs, 10, 64, (epochs - 1) / epochs)

    def resizing(share: float) -> ProgressiveResizing:
        algorithm = ProgressiveResizing(delay_fraction=delay, finetune_fraction=share)
        algorithm.crop_size = 176
        return algorithm

    found = resizing(0.2).shortfall(length)
    if epochs >= 5:
        assert found is None
    elif epochs == 1:
        assert found == ("the images reach 88 px, never 176 px", None)
    else:
        assert found and found[1]
        share = found[1]["finetune_fraction"]
        assert share == math.ceil(100 / epochs) / 100 and resizing(share).shortfall(length) is None


@pytest.mark.slow
def test_following_the_warnings_of_a_run(workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture) -> None:
    yaml = small_yaml(workdir, image_folder, save_folder=None, train_dataset__batch_size=24)
    words = [str(yaml), "recipe_name=mild", "max_duration=2ep", "train_dataset.crop_size=32"]
    words += ["eval_dataset.resize_size=32", "algorithms.ema.update_interval=2ba"]

    def warnings() -> list[str]:
        assert cli(words) == 0
        return re.findall("^warning: (.*)", capfd.readouterr().out, re.MULTILINE)

    said = warnings()
    assert [line.split(":")[0] for line in said] == [
        "train_dataset.batch_size",
        "algorithms.ema",
        "algorithms.progressive_resizing",
    ]
    assert "2 steps per epoch" in said[0] and "of the final average are the weights" in said[1]
    assert "the images reach 20 px, never 32 px in a run of 2ep, 4 batches" in said[2]
    for line in said:
        words = applied(words, line.rpartition("type ")[2].split())
    assert [line for line in warnings() if "batch_size" not in line] == []
