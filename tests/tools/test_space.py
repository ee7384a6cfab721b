"""tools.export --format space: a page that needs neither torch nor this project, asked as Gradio's client does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.browser import PROGRAM, Browser
from tests.runs import ROOT, bare_shell, wait_for
from tests.tools.conftest import WNIDS
from tests.tools.serving import bomb, encoded
from tools.export.__main__ import run
from tools.predict.__main__ import run as predict

slow = pytest.mark.slow

ALONE = """
import runpy, sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision", "tools", "loaders", "config", "common", "training"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
sys.path.insert(0, ".")
runpy.run_path("app.py", run_name="__main__")
"""
CLIENT = """
import json, sys
from gradio_client import Client, handle_file

client, found = Client(sys.argv[1], verbose=False), {}
for file in sys.argv[2:]:
    try:
        found[file] = {one["label"]: one["confidence"] for one in client.predict(handle_file(file))["confidences"]}
    except Exception as error:
        found[file] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def space(named_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported space with examples; tests do not write to it."""
    folder = tmp_path_factory.mktemp("space")
    (folder / "photos").mkdir()
    for name, kind in (("b.png", "PNG"), ("a.jpg", "JPEG")):
        (folder / "photos" / name).write_bytes(encoded(kind))
    words = ["--format=space", "--license=cc0-1.0", f"--examples={folder}/photos", "-o", str(folder / "out")]
    assert run([str(named_run), *words]) == 0
    return folder / "out" / "it-space"


@pytest.fixture(scope="module")
def page(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page, served by a process without torch and this project."""
    folder = tmp_path_factory.mktemp("page")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = bare_shell(GRADIO_SERVER_PORT=str(port), GRADIO_TEMP_DIR=str(folder / "uploads"), OMP_NUM_THREADS="1")
    log = folder / "log"
    with log.open("w") as file:
        command = [sys.executable, "-uB", "-c", ALONE]
        process = subprocess.Popen(command, cwd=space, env=settings, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: process.poll() is not None or "Running on local URL" in log.read_text())
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


@slow
def test_the_page_gives_the_runs_answers(
    page: str, named_run: Path, space: Path, workdir: Path, capsys: pytest.CaptureFixture
) -> None:
    """To images of every mode as they are stored; what is no image, or too large, gets a sentence or none."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = named_run.parent.parent / "data/val"
    images = {
        "photo.jpeg": next(data.glob("*/*")).read_bytes(),
        "turned.jpg": encoded("JPEG", exif=exif),
        "plain.png": encoded(),
    }
    bad = {"cut.png": encoded()[:300], "text.png": b"hello", "bomb.png": bomb(12_000), "large.png": bytes(11_000_000)}
    for name, content in (images | bad).items():
        Path(name).write_bytes(content)
    with Image.open("plain.png") as plain:
        for mode in ("L", "RGBA", "P"):
            plain.convert(mode).save(f"{mode}.png")
    Image.new("1", (200_000, 1)).save("thin.png")
    good = [*images, "L.png", "RGBA.png", "P.png"]
    command = [sys.executable, "-c", CLIENT, page, *bad, "thin.png", *good]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert predict([str(named_run), *good, "--format=jsonl"]) == 0
    for one in map(json.loads, capsys.readouterr().out.splitlines()):
        expected = {f"{top['name']} ({top['class']})": top["probability"] for top in one["top"]}
        assert found[one["file"]] == pytest.approx(expected, abs=1e-4), one["file"]
    assert found["cut.png"] == "The image cannot be decoded: it is damaged or cut short."
    assert found["thin.png"] == "The image is too thin."
    assert "exceeds the maximum file size" in found["large.png"]
    for name in ("text.png", "bomb.png"):  # Gradio opens them before the page does
        assert "has raised an exception but has not enabled verbose error reporting" in found[name]


@slow
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: apt-get install chromium")
def test_the_page_in_a_browser(page: str, tmp_path: Path) -> None:
    """An example is chosen and submitted, and its labels are read."""
    with Browser(tmp_path) as browser:
        browser.open(page)
        browser.wait_for("document.querySelectorAll('button.gallery-item img').length === 2")
        browser.click("button.gallery-item")
        browser.wait_for("document.querySelector('[data-testid=image] img, .image-container img')?.complete")
        browser.run("[...document.querySelectorAll('button')].find(one => one.innerText === 'Submit').click()")
        text = browser.wait_for("document.body.innerText.includes('%') && document.body.innerText")
        assert all(f"{name} ({one})" in text for one, name in WNIDS.items())


@slow
def test_the_folder(space: Path, named_run: Path) -> None:
    assert sorted(str(file.relative_to(space)) for file in space.rglob("*") if file.is_file()) == [
        "README.md",
        "app.py",
        "examples/1.jpeg",
        "examples/2.png",
        "network.onnx",
        "preprocess.py",
        "requirements.txt",
    ]
    front, text = (space / "README.md").read_text().split("---\n")[1:]
    about = yaml.safe_load(front)
    pins = dict(line.split("==") for line in (space / "requirements.txt").read_text().splitlines())
    assert list(pins) == ["gradio", "onnxruntime", "numpy", "pillow"]
    assert {f"{name}=={version}" for name, version in pins.items()} <= set(
        (ROOT / "constraints.txt").read_text().splitlines()
    )
    assert about == {
        "title": "it",
        "sdk": "gradio",
        "sdk_version": pins["gradio"],
        "app_file": "app.py",
        "python_version": "3.11",
        "license": "cc0-1.0",
    }
    assert "A resnet18 that tells 3 classes apart with " in text
    assert (space / "examples/1.jpeg").read_bytes() == encoded("JPEG")
    app, extras = (space / "app.py").read_text(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    imported = set(re.findall(r"^(?:import|from) (\w+)", app, re.MULTILINE)) - sys.stdlib_module_names
    assert imported == {"gradio", "onnxruntime", "PIL", "preprocess"}
    assert set(extras["optional-dependencies"]["serve"]) == {"gradio", "onnxruntime"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format=space", "--logits"], "--logits: is for --format pt2, torchscript or onnx\n"),
        (["--format=space,onnx", "--logits"], "--logits: a space shows probabilities; write it with another command"),
        (["--format=onnx", "--examples=."], "--examples: is for --format space"),
        (["--format=space", "--examples=none"], "none: no such file or folder"),
        (["--format=space", "--examples=empty"], "empty: holds no images"),
    ],
)
def test_bad_words(words: list[str], said: str, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    """Before the run is opened."""
    Path("empty").mkdir()
    assert run(["runs/none", *words]) == 2
    assert said in capsys.readouterr().err
