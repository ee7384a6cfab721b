"""Networks of strangers that are no classifiers of images, and descriptions that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError, UserError
from tests.tools.test_network_files import Colors, traced
from tools.networks.files import open_file
from tools.networks.inputs import Input
from tools.predict.__main__ import parse
from tools.predict.__main__ import run as predict

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@slow
def test_strangers_programs() -> None:
    """A program is known by its contents, and each that is no classifier of images is refused in a sentence."""

    class Two(nn.Module):
        def forward(self, images: Tensor, other: Tensor) -> Tensor:
            return images.mean((2, 3)) + other

    class Said(nn.Module):
        def forward(self, images: Tensor) -> dict[str, str]:
            return {"answer": "cat"}

    images = torch.zeros(2, 3, 16, 16)
    torch.export.save(torch.export.export(Colors(), (images,), strict=False), "net.pt2")
    Path("net.pt2").rename("exported.pt")
    traced("traced.pt", Colors())
    Path("traced.pt").rename("script.pt2")
    torch.export.save(torch.export.export(Two(), (images, torch.zeros(2, 3))), "two.pt2")
    torch.export.save(torch.export.export(nn.Softmax(1), (torch.zeros(2, 3),)), "flat.pt2")
    torch.jit.script(Said()).save("said.pt")
    given = Input(20, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for name in ("exported.pt", "script.pt2"):
        assert len(open_file(Path(name), given, outside_code=True).classes) == 3
    for name, said in (
        ("two.pt2", r"takes float32 \[2, 3, 16, 16\] and float32 \[2, 3\], but must take one tensor"),
        ("flat.pt2", r"takes float32 \[2, 3\], but must take one tensor"),
        ("said.pt", "its outputs are not numbers"),
    ):
        with pytest.raises(UserError, match=f"^{name}: {said}"):
            open_file(Path(name), given, outside_code=True)
    with pytest.raises(ConfigError, match="1 image of 100,000 px at a time would not fit into memory"):
        open_file(Path("script.pt2"), Input(20, 100_000, given.mean, given.std), outside_code=True)
    traced("odd.pt", Colors(), crop_size="-1", resize_size="20")
    with pytest.raises(ConfigError, match="add --crop"):
        open_file(Path("odd.pt"), Input(), outside_code=True)
    traced("odd.pt", Colors(), crop_size="16", resize_size="20", classes='["a", "b", "\\ud800"]')
    with pytest.raises(UserError, match="its metadata 'classes' does not list its 3 outputs"):
        open_file(Path("odd.pt"), Input(), outside_code=True)


def test_networks_that_are_not_there(capsys: pytest.CaptureFixture) -> None:
    Path("net.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    Path("a.png").touch()
    for network, said, status in (
        ("net.onnx", "is a pointer of Git LFS, not the file; type git lfs pull", 1),
        ("nett.onnx", "no such file; give a network", 2),
        ("nett.onnx", "did you mean net.onnx?", 2),
    ):
        assert predict([network, "a.png"]) == status
        assert f"{network}: " in (printed := capsys.readouterr().err) and said in printed
    with pytest.raises(SystemExit):
        predict(["s3://bucket/net.onnx", "a.png"])
    assert "must be a path on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--std=0"], "--std: '0' given, but it must be more than 0"),
        (["--mean=nan"], "--mean: 'nan' given, but it must be a number per channel"),
        (["--mean=123.7,116.3,103.5"], "it must be of images in 0..1; divide numbers for images in 0..255 by 255"),
    ],
)
def test_channels_that_cannot_be(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        predict(["net.onnx", "a.png", *words])
    assert said in capsys.readouterr().err


def test_no_resize_is_an_option_of_each_program() -> None:
    """tools.predict has an option -0, for which argparse would take -1 for an option."""
    assert parse(["net.onnx", "a.png", "--resize", "-1"]).resize == -1
    given = parse(["net.onnx", "-", "-0"])
    assert given.null and given.paths == ["-"]
