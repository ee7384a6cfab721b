"""The layer table: known figures of a ResNet-50, a recipe's layers, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import build_composer_resnet
from tests.runs import ROOT
from tools.model_summary.__main__ import run

DIGITS = str(ROOT / "yamls" / "digits.yaml")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines that the program prints."""
    assert run(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_resnet50(workdir: Path, capsys) -> None:
    """The default is a ResNet-50 at 224 px, with the totals that torchsummary prints."""
    lines = printed(capsys)
    for total in (
        "Total params: 25,557,032",
        "Trainable params: 25,557,032",
        "Input size (MB): 0.57",
        "Forward/backward pass size (MB): 286.56",
        "Params size (MB): 97.49",
        "Estimated total size (MB): 384.62",
    ):
        assert total in lines
    cells = [line.split() for line in lines]
    assert ["ResNet", "1x1000", "25,557,032"] in cells
    assert ["conv1", "(Conv2d)", "1x64x112x112", "9,408"] in cells
    assert ["layer4", "(Sequential)", "1x2048x7x7", "14,964,736"] in cells
    assert ["fc", "(Linear)", "1x1000", "2,049,000"] in cells
    assert max(map(len, lines)) == 80


def test_recipe_and_options(workdir: Path, capsys) -> None:
    """The recipe's layers and image size, a batch, and only the upper levels."""
    lines = printed(capsys, DIGITS, "recipe_name=mild", "--batch=2", "--depth=1")
    parameters = sum(p.numel() for p in build_composer_resnet("resnet18", num_classes=10).parameters())
    assert f"Total params: {parameters:,}" in lines
    assert any("maxpool (BlurMaxPool2d)" in line and "2x64x8x8" in line for line in lines)
    layers = [line for line in lines if line.startswith("  ")]
    assert len(layers) == 10 and not any(line.startswith("   ") for line in layers)
    whole = printed(capsys, DIGITS, "recipe_name=mild")
    assert len(whole) > len(lines) and any("BlurConv2d" in line for line in whole)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model.name=resnet5"], "did you mean resnet50?"),
        (["missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_bad_input(words: list[str], expected: str, workdir: Path, capsys) -> None:
    assert run(words) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--batch", "--depth"])
def test_bad_numbers(option: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run([f"{option}=0"])
    assert f"{option}: 0 given, but it must be 1 or more" in capsys.readouterr().err


def test_a_number_of_classes_that_the_data_give(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program does not open them."""
    assert run([DIGITS, "model.num_classes=auto"]) == 2
    assert "type model.num_classes=NUMBER" in capsys.readouterr().err
    assert run([DIGITS, "model.num_classes=10"]) == 0
