"""The benchmark of a step runs and reports what it was asked for; its timings are not tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import step as bench_step
from loaders.images import native
from tests.runs import small_yaml


@pytest.fixture
def words(image_folder: Path, workdir: Path) -> Iterator[list[str]]:
    """Command line for a round of four small steps; global settings are restored."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield [str(small_yaml(workdir, image_folder, train_dataset__batch_size=4)), "--steps=4", "--rounds=1"]
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, expected",
    [
        (["--input=synthetic", "--recipes=baseline,mild", "--sizes=16"], [("baseline", 16), ("mild", 16)]),
        (["--input=real"], [("baseline", 16)]),
    ],
    ids=["synthetic", "real"],
)
def test_a_row_per_recipe_and_size(options, expected, words, capsys, workdir):
    """Rows with both rates, in a table that fits 80 columns; no files are left."""
    rows = bench_step.main([*words, *options])
    assert [(row.recipe, row.size) for row in rows] == expected
    assert all(row.by_hand > 0 and row.ours > 0 and len(row.ratios) == 1 for row in rows)
    printed = capsys.readouterr().out
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 80
    assert all(cell in printed for row in rows for cell in row.cells())
    assert options[0].partition("=")[2] + " input" in " ".join(printed.split())
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


def test_synthetic_batches_look_like_the_loaders(words):
    """uint8 in channels_last, so that copying and normalizing are measured too."""
    run = bench_step.load_run(bench_step.parse(words), None, 16)
    images, labels = next(iter(bench_step.Batches(run)))
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_row_has_one_size(words):
    """Progressive resizing is removed, and the requested size overrides the recipe's."""
    run = bench_step.load_run(bench_step.parse(words), "hot", 32)
    assert "sam" in run.config.algorithms and "progressive_resizing" not in run.config.algorithms
    assert run.config.train_dataset.crop_size == 32 and run.config.recipe_name == "hot"


def test_warm_up_is_not_timed(monkeypatch):
    """A step's time is the average over the timed steps."""
    clock = iter([100.0, 108.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = bench_step.Stopwatch("cpu", warm_up=3, steps=4)
    for _ in range(7):
        watch.step()
    assert watch.lap() == 2.0


@pytest.mark.slow
def test_data_kinds_and_stages(workdir: Path, capsys, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders on images like ImageNet's, compared with torchvision's, and on a user's own images."""
    from benchmarks import data as bench_data

    monkeypatch.setenv("COLUMNS", "100")
    words = ["--images=200", "--rounds=1", "--workers=1", "--kinds=imagefolder,streaming,synthetic", "--plot=a.png"]
    assert bench_data.main([*words, "--sizes=64"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for row in ("decode", "augment (RandAugment)", "default, floats", "imagefolder", "streaming", "synthetic", "64"):
        assert row in printed
    assert ("ours, native" in printed) == native.available()
    assert "200 images of 1" in printed and (workdir / "a.png").stat().st_size > 5000
    run = [str(small_yaml(workdir, image_folder)), "--images=200", "--rounds=1", "--workers=1", "--kinds=imagefolder"]
    assert bench_data.main(run) == 1, "48 images must be too few"
    assert "48 images" in capsys.readouterr().err


def test_tables_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from benchmarks import data as bench_data
    from common.terminal import console

    monkeypatch.setenv("COLUMNS", "80")
    names = ("crop, resize, flip", "augment (RandAugment)", "ours", "default, bytes", "default, floats")
    console().print(bench_data.stage_table({name: [1e-2, 2e-5] for name in names}, 108e3))
    ran = [
        bench_data.Kind(name, print, [1e-3], [1e-3, 2e-5]) for name in (bench_data.DEFAULT, bench_data.DEFAULT_BYTES)
    ]
    console().print(bench_data.kind_table(ran, 108e3, "Loaders"))
    said = capsys.readouterr().out
    assert "…" not in said and max(map(len, said.splitlines())) <= 80
    for whole in ("(RandAugment)", "(1.00-1.00)", "torchvision", "image"):
        assert f" {whole} " in said


def test_plots_that_cannot_be_written(workdir: Path, capsys) -> None:
    from benchmarks import data as bench_data

    assert bench_data.main(["--plot=/nowhere/a.png"]) == 2
    assert capsys.readouterr().err == "\n/nowhere/a.png: cannot be written (No such file or directory).\n"
    with pytest.raises(SystemExit):
        bench_data.main(["--plot=a.doc"])
    assert "a.doc must end in .png, .svg, .pdf or .jpg" in capsys.readouterr().err
