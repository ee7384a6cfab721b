"""Programs start from any folder once the environment exists, and a user's modules do not replace ours."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.runs import ROOT, bare_shell

LISTED = "python -m tools.NAME --help explains"
SHADOWS = {f"{name}.py": "raise SystemExit('not ours')" for name in ("config", "data", "model", "main", "common")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout with its own environment, which finds the installed packages, completed by `make`."""
    folder = tmp_path_factory.mktemp("checkout")
    for file in ROOT.iterdir():
        if not file.name.startswith("."):
            (folder / file.name).symlink_to(file)
    venv.create(folder / ".venv")
    (folder / ".venv/.run").touch()
    subprocess.run(["make", ".venv/.ours"], cwd=folder, check=True, capture_output=True)
    (packages,) = (folder / ".venv/lib").glob("python3.*/site-packages")
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def said(checkout: Path, folder: Path, *words: str) -> str:
    """Return what Python prints in a folder, started from a bare shell."""
    command = [str(checkout / ".venv/bin/python"), *words]
    done = subprocess.run(command, cwd=folder, env=bare_shell(), capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "files",
    [{}, SHADOWS, {"tools/mine.py": "print(1)"}, {"tools/__init__.py": "", "tools/mine.py": ""}, {"tools.py": ""}],
    ids=["an empty folder", "config.py and others", "tools/", "tools/ that is a package", "tools.py"],
)
def test_a_program_of_ours(files: dict[str, str], checkout: Path, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if "tools.py" not in files:  # otherwise `python -m tools` runs that file
        assert said(checkout, tmp_path, "-m", "tools").startswith(LISTED)
    assert said(checkout, tmp_path, "-W", "error", "-m", "tools.compare", "--help").startswith(
        "usage: python -m tools.compare"
    )
    assert said(checkout, tmp_path, "-m", "launch.slurm").startswith("usage: python -m launch.slurm")


def test_programs_of_the_users(checkout: Path, tmp_path: Path) -> None:
    """A script or module of the working folder runs, and imports its neighbors."""
    (tmp_path / "config.py").write_text("mine = 'mine'")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").touch()
    (tmp_path / "tools/report.py").write_text("import config; print(config.mine)")
    (tmp_path / "script.py").write_text("import config; print(config.mine)")
    assert said(checkout, tmp_path, "-m", "tools.report") == "mine\n"
    assert said(checkout, tmp_path, "script.py", "-m", "tools.compare") == "mine\n"
    assert said(checkout, tmp_path, "-c", "import config; print(config.mine)", "-m", "tools.compare") == "mine\n"


def test_another_checkout_runs_its_own_programs(checkout: Path, tmp_path: Path) -> None:
    """In a second checkout that shares the environment, the second's programs run."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/__init__.py").touch()
    (tmp_path / "tools/__main__.py").write_text("print('the second')")
    assert said(checkout, tmp_path, "-m", "tools") == "the second\n"
    assert said(checkout, checkout, "-m", "tools").startswith(LISTED)
