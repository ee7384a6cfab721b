"""Images are prepared as in the run's evaluation, whatever its resize: by the programs, and by the exported file."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from config import ConfigError
from loaders.images.decoders import INTERPOLATIONS
from tests.loaders.jpegs import PHOTO, built, jpeg
from tools.export.subject import prepare
from tools.export.weights import check_fits
from tools.networks.files import _how
from tools.networks.opened import Network


def network(resize: int, interpolation: str, ratio: float | None) -> Network:
    return Network("it", ["a"], ["a"], resize, 64, nn.Identity(), torch.device("cpu"), interpolation, ratio)


@built
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize, ratio", [(80, None), (-1, None), (-1, 0.875)])
def test_the_exported_file_makes_the_pixels_of_the_evaluation(
    tmp_path: Path, interpolation: str, resize: int, ratio: float | None
) -> None:
    given = network(resize, interpolation, ratio)
    if interpolation == "area":
        pytest.importorskip("cv2")
    (tmp_path / "preprocess.py").write_text(prepare(SimpleNamespace(network=given)))
    (tmp_path / "image.jpg").write_bytes(jpeg(PHOTO[:200, :333]))
    made = runpy.run_path(str(tmp_path / "preprocess.py"))["load"](tmp_path / "image.jpg")
    expected = given.pipeline("pil")((tmp_path / "image.jpg").read_bytes())
    assert made.shape == (3, 64, 64) and np.array_equal(made, expected.numpy())


def test_the_metadata_say_how() -> None:
    """As written, as an earlier version wrote it, and by others."""
    for texts, how in (
        ({"interpolation": "area", "crop_ratio": "0.875"}, ("area", 0.875)),
        ({"interpolation": "bicubic", "crop_ratio": "1.0"}, ("bicubic", 1.0)),
        ({"interpolation": "bilinear antialias"}, ("bilinear", None)),
        ({"interpolation": "lanczos", "crop_ratio": "1e9"}, ("bilinear", None)),
        ({"crop_ratio": "0.0"}, ("bilinear", None)),
    ):
        assert _how(texts) == how


@pytest.mark.parametrize(
    "given, reason",
    [
        (network(-1, "bilinear", 0.875), "timm always resizes images, but the run's evaluation crops them first"),
        (network(80, "area", None), "timm has no interpolation=area, with which the run's evaluation resizes"),
    ],
)
def test_timm_cannot_prepare_every_image(given: Network, reason: str) -> None:
    run = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(name="resnet18")))
    subject = SimpleNamespace(network=given, config=run.config, given=SimpleNamespace(with_code=False))
    subject.plain = nn.Identity()
    with pytest.raises(ConfigError, match=f"--format timm: {reason}"):
        check_fits(subject, ["timm"])
