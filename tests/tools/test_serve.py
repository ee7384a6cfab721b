"""tools.serve: the answers of tools.predict to many at once, its examples and options, and the page in a browser."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from common.errors import ConfigError, UserError
from tests.browser import PROGRAM, Browser
from tests.runs import ROOT, bare_shell, wait_for
from tests.tools.checked_page import Checked
from tests.tools.conftest import WNIDS
from tests.tools.serving import CLASSES, Brightness, ask, bomb, encoded, restore, serving, tiny
from tools.networks.opened import Network, open_network
from tools.networks.runs import load_run
from tools.predict.__main__ import run as predict
from tools.serve import examples, server
from tools.serve.__main__ import run
from tools.serve.classifier import Classifier
from tools.serve.page import PAGE, POLICY

__all__ = ["restore", "tiny"]

slow = pytest.mark.slow


@slow
def test_twenty_at_once_get_the_answers_of_predict(
    named_run: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """To the bit, as each image is classified alone."""
    monkeypatch.setattr("tools.predict.formats.DIGITS", 17)
    assert predict([str(named_run), str(named_run.parent.parent / "data/val"), "--format=jsonl", "--batch=1"]) == 0
    expected = {one["file"]: one["top"] for one in map(json.loads, capsys.readouterr().out.splitlines())}
    names = sorted(expected)[:20]
    network = open_network(named_run)
    with serving(Classifier(network, network.names, 5, False)) as to, ThreadPoolExecutor(20) as pool:

        def answer(name: str) -> Any:
            # One in twenty may find no place: one is classified, and MOST_WAITING wait.
            return wait_for(lambda: (found := ask(to, "/predict", Path(name).read_bytes()))[0] == 200 and found[2])

        for _ in range(2):
            assert dict(zip(names, pool.map(answer, names), strict=True)) == {
                name: {"top": expected[name]} for name in names
            }
        assert ask(to, "/labels")[2]["names"] == list(WNIDS.values())


@slow
def test_examples(named_run: Path, workdir: Path) -> None:
    """Of the run's val/, one of each class in turn; of a folder; none where the data are not at hand."""
    config = load_run(named_run).config
    found = examples.of_run(config)
    assert [one.shown for one in found] == ["tench (n01440764)"] * 3 + ["tabby (n02123045)"] * 2 + [
        "tiger cat (n02123159)"
    ] * 3
    assert {one.kind for one in found} == {"image/jpeg"} and len({one.data for one in found}) == 8
    for path in ("nowhere", "s3://bucket/x", str(named_run)):
        config.eval_dataset.path = path
        assert examples.of_run(config) == []
    Path("photos").mkdir()
    Image.new("CMYK", (8, 8)).save("photos/b.jpg")
    for name in ("a.png", "c.bmp", "d.webp"):
        Image.new("RGB", (8, 8)).save(f"photos/{name}")
    Path("photos/_.png").write_text("hello")
    Path("photos/e.png").write_bytes(encoded() + bytes(examples.MOST_BYTES))
    assert [(one.shown, one.kind) for one in examples.of_files("photos")] == [("a", "image/png"), ("d", "image/webp")]
    with pytest.raises(
        ConfigError, match=r"--examples photos/c.bmp: holds no JPEG, PNG, WEBP or GIF of at most 1.0 MB"
    ):
        examples.of_files("photos/c.bmp")
    with pytest.raises(ConfigError, match=r"nowhere: no such file or folder"):
        examples.of_files("nowhere")


@slow
def test_the_program(named_run: Path) -> None:
    """A process that is attacked answers afterwards, has not grown much, and ends when it is told to."""
    command = [sys.executable, "-m", "tools.serve", str(named_run), "--port=0"]
    settings = bare_shell(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=named_run.parent, env=settings, text=True, **pipes)
    try:
        assert process.stdout.readline() == "it, best-rank0.pt: 3 classes, images of 16 px\n"  # type: ignore[union-attr]
        port = int(re.search(r":(\d+);", process.stdout.readline())[1])  # type: ignore[union-attr, index]
        status = Path(f"/proc/{process.pid}/status")

        def most_kb() -> int:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]

        assert len(ask(port, "/examples")[2]) == 8
        before, large = most_kb(), bomb(7000)
        attacks = [bomb(12_000), bytes(11_000_000), b"hello", b"", *[large] * 3, *[bytes(9_000_000)] * 20]
        with ThreadPoolExecutor(len(attacks)) as pool:
            found = [one[0] for one in pool.map(lambda body: ask(port, "/predict", body), attacks)]
        assert set(found) <= {200, 400, 413, 415, 503} and 413 in found and 400 in found
        assert ask(port, "/predict", encoded())[0] == 200
        assert most_kb() - before < 1_000_000  # an image and 17 bodies take 600,000, three images at once twice that
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "stopped\n")
    finally:
        process.kill()
        process.communicate()


@slow
def test_ctrl_c(named_run: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """And what a file of names and a folder of examples change."""
    Path("names.txt").write_text("".join(f"{one} my {name}\n" for one, name in WNIDS.items()))
    Image.new("RGB", (8, 8)).save("red.png")
    said = {}

    def serve(self: server.Server) -> None:
        said.update(names=list(self.classifier.called), shown=[one.shown for one in self.examples], url=self.url)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(server.Server, "serve_forever", serve)
    assert run([str(named_run), "--port=0", "--names=names.txt", "--examples=.", "--top=2"]) == 130
    assert said["names"] == [f"my {name}" for name in WNIDS.values()] and said["shown"] == ["red"]
    assert run([str(named_run), "--port=0", "--host=0.0.0.0"]) == 130 and said["shown"] == []
    printed = capsys.readouterr()
    assert f"serving on {said['url']}; Ctrl-C stops it" in printed.out and str(said["url"]).startswith(
        "http://0.0.0.0:"
    )
    assert printed.err.count("anyone who can reach this machine") == 1 and printed.err.endswith("\nstopped\n")


@slow
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed: apt-get install chromium")
def test_the_page_in_a_browser(named_run: Path, tmp_path: Path) -> None:
    """An example is clicked, and its labels are read; then a file is chosen, and one that is no image."""
    network = open_network(named_run)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "photo.jpg").write_bytes(encoded("JPEG"))
    labels = "[...document.querySelectorAll('#classes .name')].map(one => one.innerText)"
    shown = examples.of_run(load_run(named_run).config)
    classifier = Classifier(network, network.names, 5, False)
    with serving(classifier, shown) as to, Browser(tmp_path / "profile") as page:
        page.open(to.url)
        page.wait_for("document.querySelectorAll('#examples img').length === 8")
        assert page.run("document.title") == "it, best-rank0.pt" and page.run(labels) == []
        page.click("#examples button:nth-of-type(5)")
        page.wait_for("document.querySelector('#status').innerText.startsWith('Most probable')")
        expected = classifier.answer(shown[4].data)["top"]
        assert page.run(labels) == [f"{one['name']} ({one['class']})" for one in expected]  # type: ignore[attr-defined]
        bars = page.run("[...document.querySelectorAll('.bar')].map(one => parseFloat(one.style.width))")
        assert bars == [round(100 * one["probability"], 1) for one in expected]  # type: ignore[attr-defined]
        element = page.call("Runtime.evaluate", expression="document.querySelector('#file')")["result"]["objectId"]
        for name, seen in (("text.png", "Not classified: this is not an image"), ("photo.jpg", "Most probable")):
            page.call("DOM.setFileInputFiles", objectId=element, files=[str(tmp_path / name)])
            page.wait_for(f"document.querySelector('main').innerText.includes('{seen}')")
            assert page.run("document.querySelector('#answer').hidden") == (name == "text.png")
        faults = [one["params"] for one in page.said if one["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert all("415" in json.dumps(one) for one in faults), faults
        asked = [one["params"]["request"]["url"] for one in page.said if one["method"] == "Network.requestWillBeSent"]
        assert all(one.startswith((to.url, f"blob:{to.url}", "data:")) for one in asked)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = Checked(PAGE.decode().replace("<!doctype html>", ""))
    assert page.addresses == ["data:,"] and not re.search(rb"https?:|//\w+\.", PAGE)
    assert not re.search(rb"\son\w+=|style=|innerHTML|eval", PAGE)
    assert POLICY.count("sha256-") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port=99999"], "argument --port: 99999 given, but it must be 65535 or less"),
        (["--port=-1"], "argument --port: -1 given, but it must be 0 or more"),
        (["--top=0"], "argument --top: 0 given, but it must be 1 or more"),
    ],
)
def test_bad_numbers(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["runs/none", *words])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_bad_words(workdir: Path, capsys: pytest.CaptureFixture) -> None:
    """One sentence, before the network is opened."""
    Path("run").mkdir()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        for words, said in (
            (["run", f"--port={port}"], f"--port {port}: cannot be used on 127.0.0.1 (Address already in use); name"),
            (["run", "--host=256.0.0.1"], "--host 256.0.0.1: is not an address; use 127.0.0.1"),
            (["run", "--host=a..b"], "--host a..b: is not an address"),
            (["run", "--host=192.0.2.1"], "--host 192.0.2.1: is not an address of this machine; use 127.0.0.1"),
            (["run", "--port=0", "--examples=none"], "none: no such file or folder"),
            (["run", "--port=0"], "run: is not a run folder"),
            (["run", "--crop=8"], "--crop: for the file of a network; a run knows its own"),
            (["net.onnx", "--checkpoint=best"], "--checkpoint best: is for a run; net.onnx is no folder"),
            (["net.onnx", "--port=0"], "net.onnx: no such file; give a network"),
        ):
            assert run(words) == 2
            printed = capsys.readouterr()
            assert printed.err.startswith(f"\n{said}") or said in printed.err.splitlines()[1]
            assert printed.out == "" and len(printed.err.splitlines()) == 2


def test_a_network_that_has_diverged(tiny: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not served."""
    monkeypatch.setattr(Brightness, "forward", lambda _self, images: torch.full((len(images), 3), torch.nan))
    with pytest.raises(UserError, match="tiny: its outputs are not finite numbers"):
        Classifier(tiny, CLASSES, 2, False)
