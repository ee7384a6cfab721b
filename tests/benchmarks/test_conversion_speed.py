"""The benchmark of conversions reads every form that it writes."""

from __future__ import annotations

import sys

import pytest

from benchmarks import convert


@pytest.mark.slow
def test_every_form_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", "--images", "20", "--rounds", "1"])
    convert.main()
    shown = capsys.readouterr()
    assert "left out" not in shown.err
    for name in ("image folder", "table of paths", "WebDataset tars", "class folders", "tgz", "parquet", "MDS shards"):
        assert name in shown.out
