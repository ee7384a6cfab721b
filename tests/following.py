"""Follow the advice of a rejected run until it trains."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from main import cli
from tests.advice import alternatives, applied


def for_both(*said: str) -> list[str]:
    """Return the words once for each data set's section."""
    return [f"{section}.{word}" for section in ("train_dataset", "eval_dataset") for word in said]


def assert_advice_trains(
    start: Callable[[Path], list[str]], named: Callable[[str], str], workdir: Path, capfd: pytest.CaptureFixture
) -> None:
    """Check that each alternative in each message, followed alone in a fresh folder, leads to a run without a circle.

    Args:
        start: given a new working folder, return a command line with a mistake.
        named: fill in the placeholder in a word of advice.
        workdir: parent of the new folders.
        capfd: pytest's.
    """
    ways: list[list[list[str]]] = [[]]
    numbers, tried = itertools.count(), 0
    while ways:
        way = ways.pop()
        folder = workdir / str(next(numbers))
        folder.mkdir()
        os.chdir(folder)
        given = start(folder)
        for advice in way:
            given = applied(given, advice)
        capfd.readouterr()
        status = cli(given)
        problem = re.sub(r"\s+", " ", capfd.readouterr().err).strip()
        os.chdir(workdir)
        shutil.rmtree(folder)  # with its checkpoints
        if status == 0:
            assert way, "the command line holds no mistake"
            tried += 1
            continue
        found = [[named(word) for word in advice] for advice in alternatives(problem)]
        assert found, f"after {way}: {problem!r} says nothing to type"
        assert all(advice not in way for advice in found), f"{way}: {problem!r} leads in a circle"
        ways += [[*way, advice] for advice in found]
    assert tried
