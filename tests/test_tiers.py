"""The two tiers of tests: `make quick` leaves out marked tests, and a signal stops either tier."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, wait_for

QUICK = "not slow and not network"

SLEEPING = """
import time
from pathlib import Path

def test_sleeps():
    Path("asleep").touch()
    time.sleep(600)
"""
STARTING = """
import os, subprocess, sys
import pytest

def start(): subprocess.run([sys.executable, "-c", ""])

def fork():
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)

def train():
    from unittest.mock import MagicMock
    from composer.core import Engine
    Engine(MagicMock(), MagicMock())

@pytest.mark.parametrize("way", [start, fork, train])
def test_unmarked(way): way()

@pytest.mark.slow
@pytest.mark.parametrize("way", [start, fork, train])
def test_marked(way): way()

def test_by_its_fixture(moto_server): pass
"""


def suite(folder: Path, test: str, *words: str) -> subprocess.Popen:
    """Start pytest with this project's settings on the given test, in its own process group."""
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", f"--config-file={ROOT}/pyproject.toml", f"--rootdir={folder}"]
    return subprocess.Popen(
        [*command, "-p", "tests.conftest", *words, "test_it.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--numprocesses=2",)], ids=["one", "two"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 2), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_stops_the_suite(number: int, status: int, words: tuple[str, ...], tmp_path: Path) -> None:
    """Sent to all processes, as a terminal and a scheduler do; Composer's handlers would only fail one test."""
    process = suite(tmp_path, SLEEPING, *words)
    try:
        wait_for((tmp_path / "asleep").exists, process=process)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == status and "failed" not in said, said


@pytest.mark.slow
def test_unmarked_tests_may_not_start_processes_or_train(tmp_path: Path) -> None:
    said = suite(tmp_path, STARTING).communicate(timeout=300)[0]
    assert "3 failed, 4 passed" in said
    assert re.findall(r"^FAILED test_it.py::test_unmarked\[(\w+)\] - Failed: (\S+)", said, re.M) == [
        ("start", "subprocess.Popen"),
        ("fork", "os.fork"),
        ("train", "a"),
    ]
    said = suite(tmp_path, STARTING, "-m", QUICK).communicate(timeout=300)[0]
    assert "3 failed, 4 deselected" in said


@pytest.mark.slow
def test_the_markers_that_make_selects(tmp_path: Path) -> None:
    """`make quick` excludes slow and network tests, `make test` only network tests (by pyproject.toml)."""
    shown = subprocess.run(["make", "-n", "quick", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    quick, whole = (shlex.split(line) for line in shown.splitlines() if "-m pytest" in line)
    assert [word for word in quick if word not in whole] == [QUICK] and quick.count("-m") == 2
    assert whole.count("-m") == 1


def test_markers_are_declared(pytestconfig: pytest.Config) -> None:
    declared = [marker.partition(":")[0] for marker in pytestconfig.getini("markers")]
    assert {"slow", "network"} <= set(declared) and "--strict-markers" in pytestconfig.getini("addopts")
