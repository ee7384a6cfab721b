"""A conversion of any form that was killed in the middle continues, with the same result."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from pathlib import Path

import pytest

from common import whole_files
from common.whole_files import move
from tests.archives.layouts import (
    CLASSES,
    converted,
    make_archives,
    make_folder_tar,
    make_hugging_face_tars,
    make_parquet,
    make_table,
    make_tfrecord,
    make_webdataset,
)
from tests.runs import wait_for
from tests.tools.conversions import files_of
from tools.convert.__main__ import main

FORMS = {
    "archives": make_archives,
    "imagenette.tgz": make_folder_tar,
    "images.tar": make_folder_tar,
    "hf": make_hugging_face_tars,
    "parquet": lambda folder, path: make_parquet(folder, path, CLASSES),
    "tfrecord": make_tfrecord,
    "table.jsonl": make_table,
    "wds": make_webdataset,
}


def halt(temporary: Path, path: Path, durable: bool) -> None:
    """As whole_files.move, but in a worker that has written the bytes of the second shard, wait to be killed."""
    while path.name == "shard.00001.mds":
        signal.pause()
    move(temporary, path, durable)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_killed_conversion_continues(
    plain: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = FORMS[name](plain, tmp_path / name), tmp_path / "mds"  # type: ignore[operator]
    whole = converted(source, target)
    killed = tmp_path / "killed"
    words = [str(source), str(killed), "--shard-mb", "0.02", "--workers", "1"]
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(words)))
    with monkeypatch.context() as patch:
        patch.setattr(whole_files, "move", halt)
        process.start()
    try:
        half = killed / ".convert"
        wait_for(lambda: list(half.glob(".shard.00001.mds.*")) or not process.is_alive(), seconds=300)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [path for path in files_of(killed) if not path.startswith(".convert")] == ["train/shard.00000.mds"]
    capsys.readouterr()
    assert main(words) == 0
    shards = len([path for path in whole if path.endswith(".mds")])
    assert f"Continuing: 1 of {shards} shards are finished." in capsys.readouterr().out
    assert files_of(killed) == whole
