"""The continuous integration script, with a stub in place of `make`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(("failing", "status"), [("none", 0), ("check", 2), ("test", 2)])
def test_checks_and_tests_both_run_and_either_can_fail(tmp_path: Path, failing: str, status: int) -> None:
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\necho "$@"\n[ "$1" = {failing} ] && exit 2\nexit 0\n')
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True)
    assert (done.stdout.split(), done.returncode) == (["check", "test"], status), done.stderr


def test_tests_that_need_a_network_are_left_out_unless_asked_for(pytestconfig: pytest.Config) -> None:
    assert "not network" in pytestconfig.getini("addopts")
    assert any(marker.startswith("network:") for marker in pytestconfig.getini("markers"))
