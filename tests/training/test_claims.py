"""A run's folder is one run's at a time, and holds nothing of killed ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from common.folders import LocalFolder, S3Folder
from common.lock_file import LockFile
from main import cli
from tests.runs import small_yaml
from training.checkpoint_files import _new_file, remove_dead


@pytest.mark.parametrize("resumes", ["true", "false"])
def test_second_run_of_one_name(
    resumes: str, workdir: Path, image_folder: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before the data are looked at, and leaves the first one's folder alone."""
    monkeypatch.setattr("training.claims.ENDING", 0.0)
    yaml = small_yaml(workdir, image_folder, train_dataset__batch_size=64)  # of 48 images
    words = [str(yaml), "run_name=mine", f"autoresume={resumes}"]
    first = LockFile(workdir / "runs/mine")
    assert cli(words) == 2
    said = capfd.readouterr().err
    assert f"runs/mine is in use by another run (process {os.getpid()} on " in said and "Traceback" not in said
    assert [path.name for path in (workdir / "runs/mine").iterdir()] == [".lock"]
    first.release()
    assert cli(words) == 1
    assert "larger than the data set" in capfd.readouterr().err
    assert not (workdir / "runs").exists(), "a run that was refused leaves no folder"


@pytest.mark.slow
def test_kill_frees_the_folder_though_workers_live(workdir: Path) -> None:
    """A worker is forked with all that its run has open."""
    folder, (told, tell) = workdir / "run", os.pipe()
    if not (run := os.fork()):
        LockFile(folder)
        if worker := os.fork():
            os.write(tell, str(worker).encode())
        signal.pause()
    worker = int(os.read(told, 20))
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    try:
        os.kill(worker, 0)  # it lives
        lock = LockFile(folder)
        assert f"process {os.getpid()} " in lock.path.read_text()
        lock.release()
        assert not lock.path.exists()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(told)
        os.close(tell)


def test_lock_file_that_is_removed_while_another_waits(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who waited opened a file that is no longer there: it must not think itself alone."""
    first, stock = LockFile(workdir), os.open

    def late(*arguments: object) -> int:
        monkeypatch.setattr(os, "open", stock)
        descriptor = stock(*arguments)
        first.release()
        return descriptor

    monkeypatch.setattr(os, "open", late)
    second = LockFile(workdir)
    assert second.path.exists() and os.path.samestat(os.fstat(second.descriptor), second.path.stat())
    second.release()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_unfinished_files_of_dead_runs_alone_are_removed(
    kind: str, s3_server: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(workdir))
    folder = S3Folder("s3://bucket/run") if kind == "s3" else LocalFolder(str(workdir))
    (workdir / ".checkpoint-dead.tmp").touch()
    (workdir / "other.tmp").touch()
    with _new_file(workdir) as living:
        remove_dead(folder)
        assert {path.name for path in workdir.iterdir()} == {Path(living.name).name, "other.tmp"}
    assert [path.name for path in workdir.iterdir()] == ["other.tmp"]


@pytest.mark.slow
def test_a_run_removes_what_killed_ones_left(workdir: Path, image_folder: Path) -> None:
    left = workdir / "runs/run/checkpoints/.abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    words = ["run_name=run", "max_duration=2ba", "autoresume=true"]
    assert cli([str(small_yaml(workdir, image_folder)), *words]) == 0
    assert not list((workdir / "runs").rglob(".*"))
