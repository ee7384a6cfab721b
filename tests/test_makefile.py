"""The Makefile's environments: one for each stack, lean or whole, and nothing is installed twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runs import ROOT

pytestmark = pytest.mark.slow

WHOLE = "-c constraints.txt -r requirements.txt"
LEAN = "-c {0} -r launch/lean/requirements.txt; --no-deps -c {0} mosaicml mosaicml-streaming ./launch/lean"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without environments."""
    for file in ROOT.iterdir():
        if not file.name.startswith("."):
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def make(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Return what make would do."""
    return subprocess.run(["make", "-n", *words], cwd=checkout, capture_output=True, text=True)


def installs(said: str, environment: str) -> str:
    """Return the words after `pip install`, in short; only this environment may be touched."""
    lines = [" ".join(part.split()) for line in said.splitlines() for part in line.split(" && ") if "/pip " in part]
    start = f"{environment}/bin/pip --disable-pip-version-check install --quiet "
    assert all(line.startswith(start) for line in lines), lines
    text = "; ".join(line.removeprefix(start) for line in lines)
    return text.replace("--constraint", "-c").replace("--requirement", "-r")


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], ".venv", WHOLE),
        (["STACK=next"], ".venv-next", "--no-deps -r constraints-next.txt"),
        (["LEAN=1"], ".venv-lean", LEAN.format("constraints.txt")),
        (["STACK=next", "LEAN=1"], ".venv-next-lean", LEAN.format("constraints-next.txt")),
        (
            ["LEAN=1", "TRACKERS=wandb mlflow"],
            ".venv-lean",
            LEAN.format("constraints.txt").replace(";", " wandb mlflow;"),
        ),
    ],
)
def test_each_environment_has_its_lock(words: list[str], environment: str, expected: str, checkout: Path) -> None:
    said = make(checkout, "train", *words).stdout
    assert installs(said, environment) == expected and f"-m venv {environment}\n" in said
    assert said.splitlines()[-1].split() == [f"{environment}/bin/composer", "main.py", "yamls/digits.yaml"]


@pytest.mark.parametrize("target", ["train", "test", "quick", "check"])
def test_an_environment_is_reused_until_its_lock_changes(target: str, checkout: Path) -> None:
    lock = checkout / "constraints-next.txt"
    lock.unlink()
    lock.write_text("")
    (checkout / ".venv-next").mkdir()
    for stamp in (".run", ".dev"):
        (checkout / ".venv-next" / stamp).touch()
    os.utime(lock, (1, 1))
    for file in ("requirements.txt", "tests/requirements.txt"):
        assert (checkout / file).stat().st_mtime < (checkout / ".venv-next/.run").stat().st_mtime
    assert installs(make(checkout, target, "STACK=next").stdout, ".venv-next") == ""
    os.utime(lock, (2**33, 2**33))
    assert "--no-deps -r constraints-next.txt" in installs(make(checkout, target, "STACK=next").stdout, ".venv-next")


def test_an_unknown_stack(checkout: Path) -> None:
    done = make(checkout, "train", "STACK=newest")
    assert done.returncode != 0 and "STACK=newest: no such stack; use STACK=pinned" in done.stderr


@pytest.mark.parametrize(("stack", "versions"), [("pinned", "3.11"), ("next", "3.12 3.13")])
def test_another_python(stack: str, versions: str, checkout: Path) -> None:
    """It is refused before anything is installed: pip would fill gigabytes with packages that do not fit together."""
    for name, said in (("old", "Python 3.10.13"), ("new", "Python 3.110.0")):
        python = checkout / name
        python.write_text(f"#!/bin/sh\necho {said}\n")
        python.chmod(0o755)
        words = ["make", "env", f"STACK={stack}", f"PYTHON={python}"]
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
        assert done.returncode != 0
        assert f"STACK={stack} needs one of Python {versions}, and '{python}' is none of them" in done.stderr
    assert not list(checkout.glob(".venv*"))
