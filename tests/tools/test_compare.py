"""Comparing two groups of runs: the difference, its interval, and comparisons without an answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tools.left_runs import A10G, DIGITS, leave_run
from tools.compare.__main__ import difference, run
from tools.records.groups import Spread


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs of mild, two of baseline, one of sgd, and a failed one of hot."""
    folder = tmp_path_factory.mktemp("made")
    for seed, top1 in enumerate((76.8, 77.0, 77.2)):
        leave_run(folder / f"mild-{seed}", "recipe_name=mild", f"seed={seed}", top1=top1, epoch_seconds=50)
    for seed, top1 in enumerate((76.0, 76.4)):
        leave_run(folder / f"base-{seed}", f"seed={seed}", top1=top1)
    leave_run(folder / "sgd-0", "recipe_name=sgd", "seed=0", top1=77.1)
    leave_run(folder / "hot-0", "recipe_name=hot", epochs=3, ended="failed: the loss is nan")
    return folder


@pytest.fixture
def runs(made: Path, workdir: Path) -> Path:
    """runs/ with copies of them."""
    return shutil.copytree(made, workdir / "runs")


def said(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    """Run the program, check its exit status, and return its output, or its error message."""
    assert run(list(words)) == status
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err if status else printed.out


def test_interval_by_hand() -> None:
    """Two runs per side with standard deviation 0.2: the standard error is 0.2, with
    (.02 + .02)² / (.02² + .02²) = 2 degrees of freedom, for which the 97.5 % quantile of t is 4.303."""
    found = difference(Spread(2, 77.0, 0.2), Spread(2, 76.2, 0.2))
    assert found.mean == pytest.approx(0.8)
    assert found.interval == pytest.approx((0.8 - 4.303 * 0.2, 0.8 + 4.303 * 0.2), abs=1e-4)
    assert not found.is_clear


def test_interval_equals_scipys() -> None:
    from scipy.stats import ttest_ind

    a, b = [77.1, 77.4, 77.0, 77.3], [76.0, 76.5, 76.1]
    spreads = [
        Spread(len(x), sum(x) / len(x), (sum((v - sum(x) / len(x)) ** 2 for v in x) / (len(x) - 1)) ** 0.5)
        for x in (a, b)
    ]
    interval = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert difference(*spreads).interval == pytest.approx((interval.low, interval.high))
    assert difference(*spreads).is_clear


def test_without_spread() -> None:
    assert difference(Spread(1, 77, None), Spread(3, 76, 0.1)).interval is None
    alike = difference(Spread(2, 77, 0.0), Spread(2, 76, 0.0))
    assert alike.interval == (1, 1) and not alike.is_clear, "no variation does not mean certainty"
    assert difference(Spread(2, 77, 1e-160), Spread(2, 76, 1e-160)).interval == (1, 1)


def test_the_step_of_a_small_evaluation_set() -> None:
    """By hand: each variance is 1/12, the error √(1/12), 2 degrees of freedom; larger deviations are kept."""
    found = difference(Spread(2, 3.0, 0.0), Spread(2, 2.0, 0.0), step=1.0)
    assert found.interval == pytest.approx((1 - 4.303 / 12**0.5, 1 + 4.303 / 12**0.5), abs=1e-3) and not found.is_clear
    varied = (Spread(2, 77.0, 0.2), Spread(2, 76.2, 0.2))
    assert difference(*varied, step=0.5) == difference(*varied)


def test_coverage_on_the_digits() -> None:
    """Two runs per side that differ by chance, in steps of 1 of 359 images: at most 1 in 20 may look different."""
    import numpy as np

    step, draw = 100 / 359, np.random.default_rng(0)
    runs = np.round(draw.normal(99.3, 0.15, (400, 2, 2)) / step) * step
    sides = [[Spread(2, side.mean(), side.std(ddof=1)) for side in pair] for pair in runs]
    wrong = [sum(_excludes_zero(*pair, its) for pair in sides) / len(sides) for its in (0.0, step)]
    assert wrong[0] > 0.07 and wrong[1] < 0.03


def _excludes_zero(a: Spread, b: Spread, step: float) -> bool:
    low, high = difference(a, b, step).interval or (0, 0)
    return not low <= 0 <= high


def test_one_image_apart(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        leave_run(workdir / f"runs/a{seed}", f"seed={seed}", top1=99.7214, yaml="digits", data=DIGITS)
        words = ("optimizer.momentum=0.8", f"seed={seed}")
        leave_run(workdir / f"runs/b{seed}", *words, top1=99.4429, yaml="digits", data=DIGITS)
        leave_run(workdir / f"old/a{seed}", f"seed={seed}", top1=99.7214, data=None)
        leave_run(workdir / f"old/b{seed}", *words, top1=99.4429, data=None)
    printed = said(capsys, 0, "a1,a2", "b1,b2")
    assert "+0.28 (-0.07 to +0.62)" in printed and "do not tell A and B apart" in printed
    printed = said(capsys, 0, "a1,a2", "b1,b2", "--runs", "old")
    assert "they do not tell how much of the difference is chance" in printed


def test_two_recipes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, 0, "mild", "baseline", "--target", "76.5")
    assert "A: mild, 36ep, 8x NVIDIA A100-SXM4-40GB, n = 3: mild-0, mild-1, mild-2" in printed
    assert "77.00 ± 0.20" in printed and "76.20 ± 0.28" in printed and "+0.80 (-0.40 to +2.00)" in printed
    assert "The interval includes 0: these runs do not tell A and B apart." in printed
    assert "seconds to 76.5 % 1,800.0 ± 0.0" in " ".join(printed.split()) and "never" in printed
    assert "algorithms.ema.half_life" in printed and "train_dataset.crop_size" in printed


def test_clearly_better(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, top1 in enumerate((74.0, 74.1, 74.2)):
        leave_run(runs / f"adam-{seed}", "recipe_name=adam", f"seed={seed}", top1=top1)
    assert "A is more accurate, by 2." in said(capsys, 0, "mild", "adam")
    assert "B is more accurate, by 2." in said(capsys, 0, "adam", "mild")


def test_too_few_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, 0, "sgd", "mild")
    assert (
        "+0.10 (no interval)" in printed
        and "A has one run: nothing says how much of the difference is chance" in printed
    )
    assert "Train it again: python main.py yamls/resnet50.yaml recipe_name=sgd seed=1\n" in printed


def test_folders(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By folder, by name, several with commas, all runs of a folder; other hardware is not another configuration."""
    leave_run(runs.parent / "other/mild-9", "recipe_name=mild", "seed=9", top1=77.4, machine=A10G)
    printed = said(capsys, 0, "runs/mild-0,mild-1,other", "base-0,runs/base-1")
    assert "n = 3: mild-0, mild-1, mild-9" in printed
    assert "A: made on 1x NVIDIA A10G and 8x NVIDIA A100-SXM4-40GB: its times are not comparable" in printed


def test_trained_alike(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, 0, "mild-0", "mild-1", "--target", "70")
    assert "A and B were trained alike." in printed and "seconds to 70 %" in printed


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["mold", "baseline"], 1, "mold: neither a run nor a recipe of a run in runs; did you mean mild?"),
        (["hot", "baseline"], 1, "A: hot-0 is left out: failed: the loss is nan\nA: no finished run is left"),
        (["mild", "mild-0"], 2, "A and B share the run"),
        (["mild", ","], 1, "',': names no run"),
        (["mild", "baseline", "--target", "101"], 2, "--target 101: is a top-1 in percent"),
        (["mild", "baseline", "--runs", "nowhere"], 1, "nowhere: no such folder"),
        (["mild,sgd", "baseline"], 2, "A: its runs do not repeat each other. Name the runs of one of these:"),
    ],
)
def test_mistakes(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, sentence: str) -> None:
    assert sentence in said(capsys, status, *words)


def test_other_data(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(runs / "digits-0", yaml="digits", data=DIGITS)
    assert "accuracies on different images do not compare" in said(capsys, 1, "digits-0", "mild")
    assert "its runs are of different data sets" in said(capsys, 1, "digits-0,base-0", "mild")
