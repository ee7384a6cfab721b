"""tools.export: its command line, its table of formats, and what timm makes of its figures."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from tests.pages import DOCS, check_table
from tools.export import hub
from tools.export.__main__ import run, write
from tools.export.formats import FORMATS
from tools.export.quantized import is_loss


@pytest.mark.parametrize(("resize", "crop"), [(232, 224), (256, 224), (232, 176), (176, 160), (32, 32), (20, 16)])
def test_timm_resizes_to_the_same_pixel(resize: int, crop: int) -> None:
    given = argparse.Namespace(license=None)
    network = SimpleNamespace(
        resize_size=resize,
        crop_size=crop,
        crop_ratio=None,
        interpolation="bilinear",
        classes=["a", "b"],
        names=["a", "b"],
    )
    config, plain = SimpleNamespace(model=SimpleNamespace(name="resnet18")), SimpleNamespace(fc=torch.nn.Linear(3, 2))
    subject = SimpleNamespace(network=network, config=config, name="it", given=given, plain=plain)
    how = hub.config_of(subject)["pretrained_cfg"]  # type: ignore
    assert math.floor(crop / how["crop_pct"]) == resize and "license" not in how


def test_the_table_of_formats() -> None:
    rows = [(f"`{name}`", f"`{one.names[0].format('NAME')}`", one.what) for name, one in FORMATS.items()]
    check_table(DOCS / "network.md", "Export", [("`--format`", "writes", "what it is"), *rows])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/it"], "give a format: --format pth, safetensors,"),
        (["--format", "onnx"], "give a run folder, runs/NAME"),
        (["runs/it", "--format", "onx"], "--format onx: no such format; give pth, "),
        (["runs/it", "--format", "onx"], "; did you mean onnx?"),
        (["--format", "pth,onx", "runs/it"], "--format onx: no such format"),
        (["runs/it", "--format", "onnx", "--size=9"], "--size 9: give 16 to 1024 pixels"),
        (["runs/it", "--format", "onnx", "--with-code"], "--with-code: is for --format pth or safetensors"),
        (["runs/it", "--format", "hub", "--license", "MIT License"], "--license MIT License: give an identifier"),
        (["runs/it", "--format", "pth", "--int8"], "--int8: is for --format onnx"),
        (["runs/it", "--format", "pth", "--license", "mit"], "--license: is for --format hub"),
        (["runs/it", "--format", "pth", "--logits"], "--logits: is for --format pt2, torchscript or onnx"),
        (["runs/itt", "--format", "onnx"], "runs/itt: no such folder; runs holds it; did you mean it?"),
        (["runs/it/config.yaml", "--format", "onnx"], "runs/it/config.yaml: is a file; give a run folder"),
        (["runs", "--format", "onnx"], "runs: is not a run folder"),
    ],
)
def test_bad_words(words: list[str], said: str, workdir: Path, capsys) -> None:
    Path("runs/it").mkdir(parents=True)
    Path("runs/it/config.yaml").touch()
    assert run(words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in Path("runs/it").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("option", ["run", "-o"])
def test_addresses_are_not_taken_for_folders(option: str, workdir: Path, capsys) -> None:
    """A Path would drop a slash, and write to a folder called s3:."""
    with pytest.raises(SystemExit) as ended:
        run([*(["-o", "s3://b/x", "it"] if option == "-o" else ["s3://b/x"]), "--format", "pth"])
    assert ended.value.code == 2 and "s3://b/x given, but it must be a path on this machine" in capsys.readouterr().err


def test_an_export_that_cannot_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence for a user's model; a traceback for one of ours, which is a bug."""

    def fail(*_: object) -> None:
        raise RuntimeError("Expected a batch of 2\nmore lines")

    monkeypatch.setattr("tools.export.__main__.function", lambda *_: lambda *_: None)
    monkeypatch.setattr("tools.export.check.check", fail)
    for name, kind in (("mine:Net", UserError), ("resnet18", RuntimeError)):
        subject = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(name=name)))
        with pytest.raises(kind) as error:
            write(subject, {"onnx": Path("it.onnx")})  # type: ignore
        said = "--format onnx: torch cannot export mine:Net (Expected a batch of 2); give another format"
        assert kind is RuntimeError or str(error.value) == said


def test_packages_that_are_not_installed(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    Path("runs/it").mkdir(parents=True)
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run(["runs/it", "--format", "pth", "onnx"]) == 1
    said = "--format onnx: needs onnxscript, onnxruntime; type: pip install -c constraints.txt '.[export]'"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "wrong", "is_found"),
    [(18, 1, False), (18, 3, False), (18, 4, True), (999, 10, True)],
)
def test_a_loss_of_few_images_is_chance(images: int, wrong: int, is_found: bool) -> None:
    """`wrong`: images that 8 bits get wrong and 32 get right."""
    right = images - 2
    assert is_loss(100 * right / images, 100 * (right - wrong) / images, images) is is_found
