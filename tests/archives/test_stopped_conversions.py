"""A conversion of any form that was stopped in the middle continues, with the same result."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import DataError
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
from tests.tools.conversions import convert, files_of
from tools.convert.to_mds import Conversion

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


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_stopped_conversion_continues(
    plain: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = FORMS[name](plain, tmp_path / name), tmp_path / "mds"  # type: ignore[operator]
    whole = converted(source, target)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Conversion, "_finish", lambda *_: (_ for _ in ()).throw(DataError("stopped")))
        assert convert(source, stopped, "--shard-mb", 0.02) == 1
    notes = sorted(stopped.rglob("0*.json"))
    for note in notes[::2]:
        note.unlink()
    capsys.readouterr()
    assert convert(source, stopped, "--shard-mb", 0.02) == 0
    assert f"Continuing: {len(notes) - len(notes[::2])} of {len(notes)} shards are finished." in capsys.readouterr().out
    assert files_of(stopped) == whole
