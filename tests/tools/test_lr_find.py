"""The learning-rate finder: its rules on known curves, sweeps of real runs, and training at the rate found."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from composer.core import State
from composer.devices import DeviceCPU
from composer.loggers import Logger
from PIL import Image

from config import load
from main import cli
from model import build_composer_resnet
from recipes.optimizers import DecoupledSGDW
from tests.runs import COMPOSER, ROOT, bare_shell, small_yaml, summary
from tools.lr_find import rules, store
from tools.lr_find.__main__ import load_run, run
from tools.lr_find.sweep import Ramp, Sweep

DIGITS = str(ROOT / "yamls" / "digits.yaml")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Restore global settings that a run in this process changes."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "lr_find.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def found(folder: Path) -> dict:
    return json.loads((folder / "lr_find.json").read_text())


def curve() -> tuple[np.ndarray, np.ndarray]:
    """Return rates and losses: 3 up to 1e-4, falling to 1 at 1e-2, steepest at 1e-3, exploding beyond 1e-1."""
    rates = np.geomspace(1e-6, 1e1, 141)
    fall = 1 / (1 + np.exp(-4 * (np.log10(rates) + 3)))
    return rates, 3 - 2 * fall + np.where(rates > 2e-2, (np.log10(rates) + 1.7) ** 2, 0)


def test_rules() -> None:
    rates, losses = curve()
    assert rules.steepest(rates, losses) == pytest.approx(1e-3)
    assert rules.minimum(rates, losses) == pytest.approx(float(rates[losses.argmin()]) / 10)
    falling = losses[14 : losses.argmin() + 1]
    assert (np.diff(falling) < 0).all(), "the descent must start a tenth into the sweep"
    third = (len(falling) - 1) / 3
    assert rules.valley(rates, losses) == pytest.approx(rates[14 + int(third) + int(third / 2)])
    assert rules.fell(losses, losses) and not rules.still_falls(losses, 141)
    noise = np.random.default_rng(17).normal(3.0, 0.5, 141)
    mean = rules.RunningMean(rules.smoothing_for(141))
    assert not rules.fell(noise, np.array([mean.add(value) for value in noise])), "noise alone must not count as a fall"
    assert rules.still_falls(losses[: losses.argmin()], int(losses.argmin()))


def test_valley_is_the_longest_descent() -> None:
    """A short drop does not count, however deep; outliers are skipped."""
    losses = np.array([9.0, 1.0, 8.0, 7.9, 7.8, 99.0, 7.7, 7.6, 7.5, 7.4])
    # 9 8 7.9 7.8 7.7 7.6 7.5 7.4: a third of the way, plus half of a third.
    rates = np.arange(1.0, 11.0)
    first = len(losses) // 10
    third = 6 / 3
    assert rules.valley(rates, losses) == rates[first + 2 + int(third) + int(third / 2)]


def test_running_mean() -> None:
    """Constant values give that value from the start; later values decay at the given rate."""
    mean = rules.RunningMean(0.98)
    assert [mean.add(5.0) for _ in range(3)] == pytest.approx([5.0] * 3)
    weights = 0.9 ** np.arange(4)[::-1]
    mean, values = rules.RunningMean(0.9), [4.0, 1.0, 3.0, 2.0]
    assert [mean.add(value) for value in values][-1] == pytest.approx(np.average(values, weights=weights))
    assert [rules.smoothing_for(points) for points in (10, 100, 1000, 5000)] == [0.5, 0.8, 0.98, 0.98]


def test_recommendation() -> None:
    """Medians over the seeds; the highest rule for a run with warm-up, otherwise the middle one."""
    rates, losses = curve()
    suggestions = rules.suggestions([(rates, losses), (rates * 2, losses), (rates * 8, losses)])
    assert [suggestion.rule for suggestion in suggestions] == ["steepest", "valley", "minimum/10"]
    steepest = suggestions[0]
    assert (steepest.lowest, steepest.lr, steepest.highest) == pytest.approx((1e-3, 2e-3, 8e-3))
    ordered = sorted(suggestion.lr for suggestion in suggestions)
    assert rules.recommended(suggestions, warms_up=True)[0].lr == ordered[2]
    assert rules.recommended(suggestions, warms_up=False)[0].lr == ordered[1]


@pytest.mark.slow
def test_digits_train_at_the_found_rate(workdir: Path, capsys) -> None:
    """The program's files, then a run of five epochs on the digits at 16 px with the YAML that it wrote."""
    small = ["train_dataset.crop_size=16", "eval_dataset.crop_size=16", "eval_dataset.resize_size=16"]
    assert run([DIGITS, *small, "--points=60", "--write", "mine.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "60 points, but an epoch has 22 batches: they repeat the 1,438 images 2.7 times" in printed
    report, measured = found(workdir / "lr_find"), rows(workdir / "lr_find")
    rate = report["recommended"]["lr"]
    assert printed.rstrip().endswith(f"\noptimizer.lr={rate:g}") and report["override"] == f"optimizer.lr={rate:g}"
    assert 1e-4 < rate < 0.2, "outside the range between no learning and divergence"
    assert "stopped at" in report["sweeps"][0]["ended"] and len(measured) < 60
    assert [float(row["lr"]) for row in measured] == pytest.approx(
        np.geomspace(1e-5, 10, 60)[: len(measured)], rel=1e-4
    )
    image = np.asarray(Image.open(workdir / "lr_find" / "lr_find.png").convert("RGB")).astype(int)
    assert image.shape == (750, 1200, 3) and (np.abs(image - (220, 20, 60)).sum(-1) < 9).sum() > 500, "no red mark"
    # Everything but the rate is unchanged, including comments.
    before, after = Path(DIGITS).read_text().splitlines(), Path("mine.yaml").read_text().splitlines()
    assert [line for line in after if line not in before] == [f"  lr: {rate:g}"] and len(after) == len(before)
    assert not (workdir / "runs").exists()

    more = ["max_duration=5ep", "eval_interval=5ep", "run_name=found", "save_folder=null"]
    assert cli(["mine.yaml", *small, *more]) == 0
    # 94.7 with one processor's kernels, over 95 with another's.
    assert summary(workdir / "runs" / "found")["top1"] >= 88


@pytest.mark.slow
def test_seeds_differ_and_repeat(workdir: Path, image_folder: Path, capsys) -> None:
    """Each seed has its own weights and order, repeatable by seed; medians and spread are reported."""
    yaml = str(small_yaml(workdir, image_folder))
    short = [yaml, "--points=12", "--from=1e-4", "--to=0.1"]
    assert run([*short, "--seeds=2", "--out=two"]) == 0
    assert "over the seeds" in capsys.readouterr().out
    assert run([*short, "seed=18", "--out=one"]) == 0
    two = rows(workdir / "two")
    by_seed = {seed: [row for row in two if row["seed"] == seed] for seed in ("17", "18")}
    assert [row["loss"] for row in by_seed["17"]] != [row["loss"] for row in by_seed["18"]]
    assert by_seed["18"] == rows(workdir / "one")
    report = found(workdir / "two")
    assert [sweep["seed"] for sweep in report["sweeps"]] == [17, 18]
    for figures in report["suggestions"].values():
        assert figures["lowest"] <= figures["lr"] <= figures["highest"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mild", "schedulefree_sgd", "decentralized"])
def test_recipes(recipe: str, workdir: Path, image_folder: Path, capsys) -> None:
    """The sweep uses the recipe's loss and algorithms, except those that average weights or act at intervals."""
    words = [
        str(small_yaml(workdir, image_folder)),
        f"recipe_name={recipe}",
        "max_duration=40ep",
        "scheduler.t_warmup=1ba",
    ]
    words += ["train_dataset.crop_size=16", "train_dataset.batch_size=12", "model.loss_name=binary_cross_entropy"]
    words += ["eval_dataset.resize_size=20", "eval_dataset.crop_size=16"]
    words += ["algorithms.sam={}"] if recipe == "mild" else []
    named = set(load(words).config.algorithms)
    swept, left_out = load_run(words)
    kept = set(swept.config.algorithms)
    assert kept and left_out, "the recipe must keep some algorithms and drop others"
    assert kept == named - left_out.keys()
    assert not kept & {"ema", "swa", "progressive_resizing", "sam", "schedule_free", "decentralized"}
    assert run([*words, "--points=20", "--from=1e-4", "--to=1"]) == 0
    printed = capsys.readouterr().out
    assert all(f"left out: {name} ({reason})" in printed for name, reason in left_out.items())


def test_ramp(workdir: Path) -> None:
    """Param groups keep their multipliers, `initial_lr` follows for decoupled decay, an exploding loss stops it."""
    model = build_composer_resnet("resnet18", "cross_entropy", 3)
    weights = list(model.parameters())
    optimizer = DecoupledSGDW([{"params": weights[:9]}, {"params": weights[9:], "lr_multiplier": 0.25}], lr=2.0)
    state = State(rank_zero_seed=0, model=model, run_name="ramp", device=DeviceCPU(), optimizers=optimizer)
    logger, rates, sweep = Logger(state), np.geomspace(1e-4, 1e-2, 20).tolist(), Sweep(17, 48, 4)
    ramp = Ramp(sweep, rates)
    ramp.fit_start(state, logger)
    for rate, loss in zip(rates, [8.0, 4.0, 2.0, 1.0, 50.0], strict=False):
        ramp.batch_start(state, logger)
        for group, lr in zip(optimizer.param_groups, (rate, rate / 4), strict=True):
            assert group["lr"] == group["initial_lr"] == pytest.approx(lr)
        state.total_loss_dict = {"loss/train/total": loss}
        ramp.batch_end(state, logger)
    assert sweep.losses == [8.0, 4.0, 2.0, 1.0, 50.0] and "is 4 times its lowest" in sweep.ended
    ramp.batch_start(state, logger)
    state.total_loss_dict = {"loss/train/total": math.nan}
    ramp.batch_end(state, logger)
    assert len(sweep.losses) == 5 and sweep.ended.endswith("the loss is nan"), "no nan may be recorded"


@pytest.mark.slow
def test_two_ranks(tmp_path: Path, image_folder: Path) -> None:
    """Each rank processes its share of a batch, the loss is the mean over ranks, and one rank prints and writes."""
    words = [small_yaml(tmp_path, image_folder), "--points=10", "--from=1e-4", "--to=0.1", "--write=mine.yaml"]
    done = subprocess.run(
        [COMPOSER, "-n", "2", "-m", "tools.lr_find", *map(str, words)],
        cwd=tmp_path,
        env=bare_shell(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("recommended:") == 1
    report = found(tmp_path / "lr_find")
    assert report["world_size"] == 2 and len(rows(tmp_path / "lr_find")) == 10
    assert load([str(tmp_path / "mine.yaml")]).config.optimizer["lr"] == report["recommended"]["lr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr_find", "mine.yaml", "small.yaml"]


def test_writing_for_a_recipe(workdir: Path, image_folder: Path) -> None:
    """Into the run's block for the recipe, or into the user's own recipe; rejected if another layer overrides it."""
    mine = Path("mine.yaml")
    command = store.store(mine, [DIGITS, "recipe_name=mild", "optimizer.lr=3"], 0.0123)
    assert command == "composer main.py mine.yaml recipe_name=mild"
    config = load(command.split()[2:]).config
    assert config.optimizer["lr"] == 0.0123 and config.optimizer["momentum"] == 0.875
    assert load(["mine.yaml"]).config.optimizer["lr"] == 0.064, "other recipes must keep their rate"
    store.store(mine, [DIGITS, "recipe_name=mild"], 1e-05)
    assert load(command.split()[2:]).config.optimizer["lr"] == 1e-5
    added = set(mine.read_text().splitlines()) - set(Path(DIGITS).read_text().splitlines())
    assert added == {"  optimizer.lr: 1e-05"}, "only this line may be added"

    recipe = Path("quick.yaml")
    recipe.write_text("card: {summary: quick}   # mine\noptimizer:\n  lr: 1.0   # too much\n  momentum: 0.5\n")
    words = [DIGITS, "recipe_name=quick.yaml"]
    store.check(recipe, words)
    assert store.store(recipe, words, 0.02) == f"composer main.py {DIGITS} recipe_name=quick.yaml"
    assert [line.split("#")[1:] for line in recipe.read_text().splitlines()] == [[" mine"], [], [" too much"], []]
    assert load(words).config.optimizer["lr"] == 0.02

    overruling = Path("run.yaml")
    overruling.write_text(Path(DIGITS).read_text() + "\nquick: {optimizer.lr: 0.5}\n")
    before = recipe.read_bytes()
    with pytest.raises(ValueError, match=r"another layer would set optimizer\.lr=0\.5 over it"):
        store.store(recipe, ["run.yaml", "recipe_name=quick.yaml"], 0.03)
    assert recipe.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--from=1", "--to=0.1"], "--from 1 --to 0.1: the range must rise"),
        (["--from=0"], "the range must rise, above 0"),
        (["--to=inf"], "the range must rise"),
        (["--points=9"], "--points 9: shows no curve; give at least 10"),
        (["--seeds=0"], "--seeds 0: give at least 1"),
        (["is_train=false"], "is_train: false only evaluates"),
        (["train_dataset.path=nowhere"], "no such folder: nowhere"),
        (["optimizer.lrr=1"], "optimizer.lrr"),
        (["--write=rate.txt"], "must end with .yaml"),
        (["--write=no/such/rate.yaml"], "there is no folder no/such"),
        (["--write", str(ROOT / "recipes/mild.yaml")], "is a recipe that this run does not use"),
    ],
)
def test_bad_input(words: list[str], expected: str, workdir: Path, image_folder: Path, capsys) -> None:
    assert run([str(small_yaml(workdir, image_folder)), *words]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.slow
def test_uninformative_ranges(workdir: Path, image_folder: Path, capsys) -> None:
    yaml = str(small_yaml(workdir, image_folder, train_dataset__batch_size=48))
    assert run([yaml, "--points=10", "--from=1e-9", "--to=1e-8"]) == 1
    assert "the loss never fell between the rates 1e-09 and 1e-08" in capsys.readouterr().err
    assert run([yaml, "--points=10", "--from=1e-5", "--to=5e-3"]) == 0
    assert "The loss still falls at --to 0.005: the best rate may be higher; use --to 0.5" in capsys.readouterr().out
