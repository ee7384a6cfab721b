"""Resuming in a folder with damaged or foreign files: they give a sentence or are ignored."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.folders import LocalFolder
from common.lock_file import LockFile
from config import ConfigError, UserError
from main import cli
from tests.runs import small_yaml, summary
from training import earlier_run
from training.checkpoint_files import newest_first
from training.record import RunFolder, keep_output


def huge(path: Path) -> None:
    """Create a file that takes no disk space, but all memory to read."""
    path.touch()
    os.truncate(path, 2**40)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "cut": lambda path: path.write_text('{"step": 2, "en'),
    "no UTF-8": lambda path: path.write_bytes(b"caf\xe9: 1\n"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "other kinds": lambda path: path.write_text('{"step": "2", "ended": {}, "total_seconds": "x", "tracker_id": [3]}'),
    "not a number": lambda path: path.write_text('{"step": 2, "total_seconds": NaN}'),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a circle": lambda path: path.symlink_to(path.name),
    "a folder": lambda path: path.mkdir(),
    "huge": huge,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files(name: str, workdir: Path) -> None:
    """A damaged summary is ignored; damaged figures and settings are not."""
    for file in ("summary.json", "config.yaml", "metrics.csv"):
        DAMAGES[name](workdir / file)
    run = RunFolder(workdir, None)  # type: ignore[arg-type]
    seconds = {"other kinds": "x", "not a number": "nan"}.get(name, "None")
    assert str(earlier_run.summary(workdir).get("total_seconds")) == seconds
    (workdir / "metrics.csv").rename(workdir / "other")
    assert run.seconds_paid() == 0.0 and run._finished_at() is None
    (workdir / "other").rename(workdir / "metrics.csv")
    if name not in ("empty", "other kinds", "not a number"):
        with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read: .*\. Repair it, or delete it"):
            earlier_run.configuration(workdir)
    if name != "a circle":
        with pytest.raises(UserError, match=r"metrics\.csv: is damaged \(.*\)\. Repair it, or delete it"):
            earlier_run.rows(workdir)


@pytest.mark.parametrize("row", ["1,nan,5", "1,2,inf", "1,2", "1,2,3,4", "1,-2,3", ",,"])
def test_rows_without_valid_figures(row: str, workdir: Path) -> None:
    (workdir / "metrics.csv").write_text(f"epoch,step,total_seconds\n1,1,1\n{row}\n")
    with pytest.raises(UserError, match="is damaged"):
        earlier_run.rows(workdir)


@pytest.mark.slow
def test_resuming_with_damaged_files(workdir: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = small_yaml(workdir, image_folder, train_dataset__num_workers=0, eval_dataset__num_workers=0)
    words = [str(yaml), "run_name=run", "autoresume=true", "max_duration=2ba"]
    assert cli(words) == 0
    run = workdir / "runs/run"
    whole = {name: (run / name).read_bytes() for name in ("config.yaml", "metrics.csv")}
    for name, code in (("config.yaml", 2), ("metrics.csv", 1)):
        (run / "summary.json").write_text("{")
        (run / name).write_text("step: [")
        assert cli(words) == code
        assert f"{name}: " in capsys.readouterr().err
        (run / name).write_bytes(whole[name])
    (run / "environment.json").write_text("{")
    assert cli(words) == 0 and summary(run)["ended"] == "finished"


def test_only_files_are_checkpoints(workdir: Path) -> None:
    """Anything else under a checkpoint's name is ignored, without blocking."""
    for number, name in enumerate(DAMAGES):
        DAMAGES[name](workdir / f"ep0-ba{number}-rank0.pt")
    there = [n for n, name in enumerate(DAMAGES) if not name.startswith("a ") or name == "a list"]
    assert newest_first(LocalFolder(".")) == [f"ep0-ba{number}-rank0.pt" for number in reversed(there)]


def test_links_are_not_written_through(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run replaces links under its files' names in a foreign folder, instead of following them."""
    (workdir / "precious.txt").write_text("mine\n")
    for name in (".lock", ".summary.json.tmp", "logs/rank1.log"):
        (workdir / "run/logs").mkdir(parents=True, exist_ok=True)
        (workdir / "run" / name).symlink_to(workdir / "precious.txt")
    RunFolder(workdir / "run", None).write_summary({})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"run/\.lock cannot be written"):
        LockFile(workdir / "run")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    keep_output(workdir / "run/logs/rank1.log")
    sys.stdout.streams[1].close()
    assert (workdir / "precious.txt").read_text() == "mine\n" and (workdir / "run/summary.json").is_file()
