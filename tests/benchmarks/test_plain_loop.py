"""The hand-written loop uses the baseline's learning rates, and both loops are trained and compared."""

from __future__ import annotations

import re
import shutil
import statistics
from pathlib import Path

import pytest

from benchmarks import plain_loop
from loaders.storage.digits import make_digits
from recipes.schedules import cosine_with_warmup


def test_learning_rates_equal_the_baselines() -> None:
    ours = [cosine_with_warmup(step, total=88, warmup=22) for step in range(88)]
    assert [plain_loop.rate(step, 22, 88) for step in range(88)] == pytest.approx(ours)


@pytest.mark.slow
def test_both_sides_are_trained(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def few(folder: Path) -> Path:
        """Make a small subset of the digits."""
        whole = make_digits(workdir / "whole")
        for split, number in (("train", 13), ("val", 2)):
            for label in range(10):
                (folder / split / str(label)).mkdir(parents=True)
                for file in sorted((whole / split / str(label)).iterdir())[:number]:
                    shutil.copy(file, folder / split / str(label))
        return folder

    monkeypatch.setattr(plain_loop, "make_digits", few)
    assert plain_loop.main(["--seeds", "2", "--epochs", "2"]) == 0
    said = capsys.readouterr().out
    each = re.findall(
        r"^(main\.py|by hand), model\.init=(\w+): ([\d.]+) \+- [\d.]+ % \(([\d.]+), ([\d.]+)\)$", said, re.M
    )
    assert [(name, init) for name, init, *_ in each] == [
        (name, i) for i in plain_loop.INITS for name in ("main.py", "by hand")
    ]
    means = {(name, init): float(mean) for name, init, mean, *_ in each}
    for name, init, mean, *values in each:
        assert float(mean) == pytest.approx(statistics.fmean(map(float, values)), abs=0.01), (name, init)
    gaps = dict(re.findall(r"^main\.py - by hand, model\.init=(\w+): ([+-][\d.]+) \(", said, re.M))
    for init in plain_loop.INITS:
        assert float(gaps[init]) == pytest.approx(means["main.py", init] - means["by hand", init], abs=0.02)
