"""tools.seek: what it makes again, and what it says."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from loaders.images import native
from loaders.images.native import Encoded
from loaders.images.transforms import EvaluationPipeline
from loaders.storage.imagefolder import SPLITS, ImageFolderDataset
from loaders.storage.seek_file import SeekFile
from tests.image_files import make_imagefolder, make_shards
from tests.loaders.jpegs import PHOTO, built, jpeg
from tests.tools.copies import preload
from tools.seek.__main__ import main as seek
from tools.verify.__main__ import main as verify

pytestmark = built


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_imagefolder(tmp_path / "my set", per_class=3, size=40)
    (root / "val/cat/progressive.jpeg").write_bytes(jpeg(PHOTO[:50, :50], progressive=True))
    return root


def made(capsys: pytest.CaptureFixture, root: Path, *words: str) -> dict[str, list[str]]:
    """Run it, and return the cells of each split's row."""
    assert seek([str(root), *words]) == 0
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_only_what_changed_is_made_again(root: Path, capsys: pytest.CaptureFixture) -> None:
    first = made(capsys, root)
    assert first["train"][:3] == ["9", "9", "9"] and first["val"][:3] == ["10", "9", "10"]
    before = (root / "train.seek").read_bytes()
    assert made(capsys, root)["train"][:3] == ["9", "9", "0"]
    assert (root / "train.seek").read_bytes() == before
    (root / "train/cat/new.jpeg").write_bytes(jpeg(PHOTO[:40, :40]))
    next((root / "train/dog").iterdir()).touch()
    assert made(capsys, root)["train"][:3] == ["10", "10", "2"]
    assert made(capsys, root, "--every", "2")["train"][:3] == ["10", "10", "10"]
    assert made(capsys, root, "--workers", "1", "--every", "2")["val"][:3] == ["10", "9", "0"]


@pytest.mark.slow
def test_it_says_what_has_no_table(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "train/cat/broken.jpeg").write_bytes(jpeg(PHOTO)[:5000])
    (root / "train/cat/gone.jpeg").symlink_to("nowhere")
    assert seek([str(root)]) == 0
    said = capsys.readouterr().out
    assert "train: 2 images have none." in said and "val: 1 image has none." in said
    assert "Only baseline JPEGs of gray or color can have tables; python -m tools.verify finds damaged ones." in said
    assert verify([str(root), "--workers=1"]) == 1
    assert f"{root}/train/cat/broken.jpeg: " in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_keeps_what_is_finished(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("tools.seek.__main__.CHUNK", 2)
    make, calls = native.seek_table, []

    def interrupted(data: bytes, every: int = 0) -> bytes | None:
        calls.append(every)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return make(data, every)

    monkeypatch.setattr(native, "seek_table", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    assert seek([str(root), "--workers", "1"]) == 130
    assert "repeat the command to continue" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(SeekFile(root / "train.seek").keys) == 9 and not (root / "val.seek").exists()
    finished = len(calls)
    assert finished < 9
    assert made(capsys, root)["train"][:3] == ["9", "9", str(9 - finished)]


def test_a_failure_leaves_the_earlier_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seek([str(root)]) == 0
    before = (root / "train.seek").read_bytes()

    def broken(data: bytes, every: int = 0) -> bytes | None:
        raise MemoryError

    monkeypatch.setattr(native, "seek_table", broken)
    with pytest.raises(MemoryError):
        seek([str(root), "--every", "8"])
    assert (root / "train.seek").read_bytes() == before
    assert sorted(path.name for path in root.iterdir()) == ["train", "train.seek", "val", "val.seek"]


@pytest.mark.slow
def test_verify_checks_the_tables(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert seek([str(root)]) == 0
    assert verify([str(root), "--workers=1"]) == 0
    capsys.readouterr()
    next((root / "train/cat").iterdir()).touch()
    assert verify([str(root), "--workers=1"]) == 0
    assert "train.seek: out of date. Of 9 images 1 is new" in " ".join(capsys.readouterr().out.split())
    path = root / "train.seek"
    changed = bytearray(path.read_bytes())
    changed[-20] ^= 4
    path.write_bytes(changed)
    assert verify([str(root), "--workers=1"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"its seek table is another image's, or damaged. Type: rm '{path}' && python -m tools.seek '{root}'" in said


@pytest.mark.parametrize("splits", [None, ["train"]])
def test_a_preloaded_copy_has_the_tables_too(root: Path, tmp_path: Path, splits: list[str] | None) -> None:
    assert seek([str(root)]) == 0
    copied = preload(str(root), tmp_path / "copy", splits)
    assert sorted(path.name for path in copied.glob("*.seek")) == [f"{split}.seek" for split in splits or SPLITS]
    data = ImageFolderDataset(copied, "train", EvaluationPipeline(-1, 8, "native"), 0)
    assert data.remark() is None and all(isinstance(data.borrow(index)[0], Encoded) for index in range(len(data)))


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def full(data: bytes, every: int = 0) -> bytes | None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(native, "seek_table", full)
    assert seek([str(root)]) == 1
    assert f"{root}/train.seek: cannot be written (No space left on device). Free" in capsys.readouterr().err
    assert not list(root.glob("*.seek")) and not list(root.glob(".*"))


@pytest.mark.parametrize("every", ["-1", "65536"])
def test_bad_options(every: str, root: Path, capsys: pytest.CaptureFixture) -> None:
    assert seek([str(root), "--every", every]) == 2
    assert f"--every {every}: must be from 0 (per row only) to 65535" in capsys.readouterr().err


def test_not_an_image_folder(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_shards(root, tmp_path / "mds")
    assert seek([str(tmp_path / "mds")]) == 1
    assert f"To add it: python -m tools.convert {tmp_path}/mds DST --seekable" in capsys.readouterr().err
    assert seek([str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_without_our_huffman_decoder(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(native, "huffman_decoder", lambda: "libjpeg-turbo")
    assert seek([str(root)]) == 1
    assert "seek tables need our Huffman decoder, which failed its self-test" in capsys.readouterr().err
    assert not (root / "train.seek").exists()
