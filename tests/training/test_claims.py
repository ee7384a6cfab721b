"""A run's folder belongs to one run at a time, and unfinished files of killed runs are removed."""

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
    """It is rejected before the data is read, and does not touch the first run's folder."""
    monkeypatch.setattr("training.record.ENDING", 0.0)
    yaml = small_yaml(workdir, image_folder, train_dataset__batch_size=64)  # larger than the data set of 48 images
    words = [str(yaml), "run_name=mine", f"autoresume={resumes}"]
    first = LockFile(workdir / "runs/mine")
    assert cli(words) == 2
    said = capfd.readouterr().err
    assert f"runs/mine is in use by another run (process {os.getpid()} on " in said and "Traceback" not in said
    assert [path.name for path in (workdir / "runs/mine").iterdir()] == [".lock"]
    first.release()
    assert cli(words) == 1
    assert "larger than the data set" in capfd.readouterr().err
    assert not (workdir / "runs").exists(), "a rejected run leaves no folder"


@pytest.mark.slow
def test_a_kill_releases_the_folder_despite_its_workers(workdir: Path) -> None:
    """A worker inherits all of its run's descriptors when it is forked."""
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
        os.kill(worker, 0)  # it is alive
        lock = LockFile(folder)
        assert f"process {os.getpid()} " in lock.path.read_text()
        lock.release()
        assert not lock.path.exists()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(told)
        os.close(tell)


def test_lock_file_that_is_removed_while_another_waits(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting process opened a file that was then removed; it must not treat that file's lock as its own."""
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
def test_only_unfinished_files_of_dead_runs_are_removed(
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
def test_a_run_removes_files_of_killed_runs(workdir: Path, image_folder: Path) -> None:
    left = workdir / "runs/run/checkpoints/.abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    words = ["run_name=run", "max_duration=2ba", "autoresume=true"]
    assert cli([str(small_yaml(workdir, image_folder)), *words]) == 0
    assert not list((workdir / "runs").rglob(".*"))
