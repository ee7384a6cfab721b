"""Odd paths are shown and stored unchanged: brackets are not markup, and names may be other than UTF-8."""

import os
from pathlib import Path

import pytest
import torch

from common.terminal import ImageMeter, console, printable
from data import build_imagenet_dataspec
from loaders.images.sheet import draw_sheet
from loaders.storage.inspection import main as check
from loaders.storage.inspection import section
from tests.image_files import make_imagefolder
from tools.convert.__main__ import main as convert
from tools.verify.__main__ import run as verify
from tools.verify.folding import fold, unfold

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder whose name looks like markup, with a broken image under a Latin-1 name."""
    root = make_imagefolder(tmp_path / "[v1] data" / "[/x] [old]", classes=("a\nb", "[bold]", LATIN), per_class=2)
    (root / "train" / "[bold]" / f"{LATIN}.jpg").write_bytes(b"no image")
    (root / "train" / "[bold]" / "left out.gif").write_bytes(b"")
    return root


@pytest.mark.slow
def test_verify_and_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for program in (lambda: verify([str(root), "--workers=1"]), lambda: check([str(root)], build_imagenet_dataspec)):
        status = program()
        said = capsys.readouterr().out
        assert status == 1 and f"{root}/train/[bold]/caf\\udce9.jpg: cannot be read as an image" in said
        assert "train: 1 file is not an image by name or type, and is ignored (.gif)." in said
        assert f"Data set {root}" in said and f"{root}: 1 fault" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mds", "ffcv"])
def test_convert(root: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    out = root.parent / "out [/y]"
    assert convert([str(root), str(out), "--to", kind, "--skip-unreadable", "--workers=1"]) == 0
    assert os.fsencode(f"/{LATIN}.jpg: cannot be read as an image") in (out / "skipped.txt").read_bytes()
    said = capsys.readouterr().out
    assert f"Looking through {root}\n" in said and "is ignored (.gif)" in said and str(out) in said


def test_meters(capsys: pytest.CaptureFixture[str]) -> None:
    where = console()
    where.print(ImageMeter(where, "[/x].beton", 10)._bar.get_renderable())
    assert "[/x].beton" in capsys.readouterr().out


def test_moves(tmp_path: Path) -> None:
    root = make_imagefolder(tmp_path / "set", classes=("cat",), per_class=1)
    for path in (root / "val/cat").iterdir():
        path.rename(root / "val" / f"{LATIN}.jpg")
    (root / "val/cat").rmdir()
    (tmp_path / "mapping").write_text("cat\n")
    assert fold(root, tmp_path / "mapping") == 1 and (root / f"val/cat/{LATIN}.jpg").is_file()
    assert unfold(root) == 1 and (root / f"val/{LATIN}.jpg").is_file()


def test_contact_sheet() -> None:
    names = ["a\nb", LATIN, "犬 [bold]"]
    assert [printable(name) for name in names] == ["a\\nb", "caf\\udce9", "犬 [bold]"]
    training = section("train", 8, (torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3)), names[:2])
    assert [tile.lines[0][0] for tile in training.tiles] == ["a\nb", LATIN, "class 2"]
    assert draw_sheet([training, training], 2, 16).size == (2 * 32 + 2 * 16 + 14, 2 * 32 + 2 * (62 + 2 * 54) - 14)
