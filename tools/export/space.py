"""A folder for a Hugging Face Space: a page in Gradio over ONNX, without torch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from tools.export.formats import PREPROCESS
from tools.export.onnx_file import read_onnx, write_onnx
from tools.export.programs import Reader
from tools.export.subject import ALONE, Subject, prepare
from tools.serve.examples import of_files

APP, NETWORK = "app.py", "network.onnx"
NEEDS = ("gradio", "onnxruntime", "numpy", "pillow")
PINS = Path(__file__).parents[2] / "constraints.txt"

CARD = """---
{front}---

# {name}

A {architecture} that tells {classes} classes apart{top1}, trained with the recipe `{recipe}` of ResNet Recipes.

On your machine: `pip install -r requirements.txt && python {app}`. Files of at most 10 MB and 50 million pixels are
classified one at a time, and deleted within two hours.
"""


def write_space(subject: Subject, path: Path) -> None:
    """Write the folder, with the images of --examples."""
    path.mkdir()
    write_onnx(subject, path / NETWORK)
    shutil.copyfile(ALONE / APP, path / APP)
    (path / PREPROCESS).write_text(prepare(subject))
    needed = [*NEEDS, *(["opencv-python-headless"] if subject.network.interpolation == "area" else [])]
    pins = {name: _pin(name) for name in needed}
    (path / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    (path / "README.md").write_text(_card(subject, pins["gradio"]))
    if subject.given.examples:
        (path / "examples").mkdir()
        for number, one in enumerate(of_files(subject.given.examples), 1):
            (path / f"examples/{number}.{one.kind.removeprefix('image/')}").write_bytes(one.data)


def read_space(subject: Subject, path: Path) -> Reader:
    """Load the network as the page does."""
    return read_onnx(subject, path / NETWORK)


def _pin(name: str) -> str:
    """Return the version of a package that this project is tested with."""
    found = re.search(rf"^{name}==(\S+)$", PINS.read_text(), re.MULTILINE)
    assert found, name
    return found[1]


def _card(subject: Subject, gradio: str) -> str:
    """Return the README, which begins with the settings of a Space."""
    front: dict[str, Any] = {"title": subject.name, "sdk": "gradio", "sdk_version": gradio, "app_file": APP}
    front |= {"python_version": "3.11"} | ({"license": subject.given.license} if subject.given.license else {})
    top1 = subject.figures.get("top1")
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        name=subject.name,
        architecture=subject.config.model.name,
        classes=f"{len(subject.network.classes):,}",
        top1="" if top1 is None else f" with {top1:.2f} % top-1",
        recipe=subject.record.recipe,
        app=APP,
    )
