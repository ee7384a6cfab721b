"""Files compressed by gzip are read at any offset, as what is inside."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.archives import gzips
from loaders.archives.gzips import GzipRanges

INSIDE = random.Random(0).randbytes(700_000) + bytes(3_000_000) + random.Random(1).randbytes(300_000)


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small file have many copies of the decompressor, too many in fact."""
    monkeypatch.setattr(gzips, "_CHUNK", {False: 4096})
    monkeypatch.setattr(gzips, "MOST_COPIES", 40)
    monkeypatch.setattr(gzips._Copies, "spacing", 8192)
    monkeypatch.setattr(gzips._Copies, "count", 0)
    monkeypatch.setattr(gzips, "_files", {})


def opened(path: Path, content: bytes) -> GzipRanges:
    path.write_bytes(content)
    return gzips.gzip_ranges(str(path))


@pytest.mark.parametrize("members", [1, 3])
def test_any_range(tmp_path: Path, members: int) -> None:
    """In a file of one member or several, also followed by zeros, as tapes have them."""
    step = -(-len(INSIDE) // members)
    parts = [gzip.compress(INSIDE[start : start + step]) for start in range(0, len(INSIDE), step)]
    file = opened(tmp_path / "a.gz", b"".join(parts) + bytes(100))
    draw = random.Random(2)
    for turn in range(60):
        offset, size = draw.randrange(len(INSIDE)), draw.choice([0, 1, 100, 50_000])
        assert file.read(offset, size) == INSIDE[offset : offset + size]
        if turn == 30:
            assert file.size == len(INSIDE)
    assert file.read(len(INSIDE) - 5, 100) == INSIDE[-5:]
    assert file.read(len(INSIDE), 1) == file.read(len(INSIDE) + 10**6, 1) == b""
    assert 10 < len(file.copies) <= 40


def test_reading_resumes_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first pass, a range costs no more than the distance of two copies."""
    file = opened(tmp_path / "a.gz", gzip.compress(INSIDE))
    assert file.size == len(INSIDE)
    steps = []
    step = GzipRanges._step
    monkeypatch.setattr(GzipRanges, "_step", lambda self: steps.append(1) or step(self))
    file.read(650_000, 10)
    assert 0 < len(steps) <= 2 + gzips._Copies.spacing // 4096
    file.read(100_000, 10)
    assert len(steps) <= 2 * (2 + gzips._Copies.spacing // 4096)


def test_damaged_files(tmp_path: Path) -> None:
    whole = gzip.compress(INSIDE)
    flipped = bytearray(whole)
    flipped[300_000] ^= 1  # random data are stored as they are: only the checksum tells
    other = b"BZh91AY" + whole
    cases = {
        "truncated": whole[:500_000],
        "damaged": bytes(flipped),
        "damaged, before byte 4,096": other,
        "truncated,": b"",
    }
    for number, (said, content) in enumerate(cases.items()):
        file = opened(tmp_path / f"{number}.gz", content)
        with pytest.raises(DataError, match=rf"{number}\.gz: is {said}.*Copy or download it again\.$"):
            _ = file.size
