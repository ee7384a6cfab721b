"""A full disk is reported as such, as early as possible."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.folders import LocalFolder
from config import UserError
from training.checkpoint_files import check_room, write

CONTENT = {"state": {"model": torch.zeros(10, 25_000), "others": [torch.zeros(250_000)]}}  # 2 MB


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Free megabytes on the disk, settable."""
    disk = SimpleNamespace(megabytes=1.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(disk.megabytes * 1e6)))
    return disk


@pytest.mark.parametrize(
    ("error", "megabytes", "said"),
    [
        (RuntimeError("unexpected pos 64 vs 0"), 1.0, "no space left: 1 checkpoint of 2.0 MB to write, 1.0 MB free"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2.1, "no space left: 1 checkpoint of 2.0 MB"),
        (RuntimeError("unexpected pos 64 vs 0"), 100.0, r"x.pt could not be written \(unexpected pos"),
    ],
)
def test_error_of_a_full_disk(
    error: Exception, megabytes: float, said: str, free: SimpleNamespace, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch, "save", fail)
    free.megabytes = megabytes
    with pytest.raises(UserError, match=said):
        write(CONTENT, LocalFolder(str(workdir)), "x.pt")
    assert not list(workdir.iterdir())


def test_space_before_the_first_checkpoint(free: SimpleNamespace, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    """Two checkpoints to keep, the best one and the one being written: 8 MB."""
    folder = LocalFolder(str(workdir))
    with pytest.raises(UserError, match=r"1 checkpoint of 2.0 MB to write, 1.0 MB free.*save_folder="):
        check_room(folder, CONTENT, keep=2, own=[])
    free.megabytes = 7.9
    check_room(folder, CONTENT, keep=2, own=[])
    assert "4 checkpoints of 2.0 MB to write, 7.9 MB free" in capsys.readouterr().out
    check_room(folder, CONTENT, keep=2, own=["ep0-ba1-rank0.pt"])
    free.megabytes = 8.1
    check_room(folder, CONTENT, keep=2, own=[])
    assert not capsys.readouterr().out
