"""tools.serve: the answers of tools.predict to many at once, its limits, and the page in a browser."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from common.errors import ConfigError, UserError
from tests.browser import PROGRAM, Browser
from tests.runs import ROOT, bare_shell, wait_for
from tests.tools.checked_page import Checked
from tests.tools.conftest import WNIDS
from tools.networks.opened import Network, open_network
from tools.networks.runs import load_run
from tools.predict.__main__ import run as predict
from tools.serve import examples, server
from tools.serve.__main__ import run
from tools.serve.classifier import MOST_WAITING, TURNED, Classifier, Rejected, check
from tools.serve.examples import Example
from tools.serve.page import PAGE, POLICY

slow = pytest.mark.slow
CLASSES = ["a", "<b>", "c"]


class Brightness(nn.Module):
    """A network of three classes that waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.may_go_on.wait(60)
        return images.float().mean((2, 3)).div(255).softmax(1)


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the program sets for its process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def serving(classifier: Classifier, shown: list[Example] | None = None) -> Iterator[server.Server]:
    made = server.Server(server.bound("127.0.0.1", 0), classifier, shown or [])
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.close()


@pytest.fixture
def tiny() -> Network:
    return Network("tiny", CLASSES, CLASSES, 10, 8, Brightness(), torch.device("cpu"))


@pytest.fixture
def served(tiny: Network) -> Iterator[server.Server]:
    """A server of a network without layers."""
    with serving(Classifier(tiny, CLASSES, 2, False), [Example(encoded(), "image/png", "one <b>")]) as made:
        yield made


def encoded(kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """Return a PNG of a few KB whose pixels take three bytes each when they are decoded to RGB."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def ask(to: server.Server | int, path: str, body: bytes | None = None, method: str = "", **headers: str):
    """Return an answer's status, headers and content, parsed if it is JSON."""
    port = to if isinstance(to, int) else to.server_port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        answer = connection.getresponse()
        content = answer.read()
    is_json = answer.headers.get_content_type() == "application/json"
    return answer.status, answer.headers, json.loads(content) if is_json and content else content


def send(to: server.Server, data: bytes) -> bytes:
    """Send bytes, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", to.server_port), timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


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


def test_addresses(served: server.Server) -> None:
    status, headers, page = ask(served, "/?x=1")
    assert status == 200 and page == PAGE and headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Server"] == "tools.serve"
    assert ask(served, "/health")[::2] == (200, {"status": "ok"})
    assert ask(served, "/labels")[2] == {"network": "tiny", "classes": CLASSES, "names": CLASSES}
    assert ask(served, "/examples")[2] == ["one <b>"]
    status, headers, image = ask(served, "/examples/0")
    assert status == 200 and image == encoded() and headers["Content-Type"] == "image/png"
    assert ask(served, "/", method="HEAD")[::2] == (200, b"")
    status, _, answer = ask(served, "/predict", encoded())
    assert status == 200 and [one["label"] for one in answer["top"]] and len(answer["top"]) == 2
    assert send(served, b"GET http://127.0.0.1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is empty; send an image: a JPEG, PNG"),
        (b"hello", 415, "the body is not an image: a JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "the body is not an image"),
        (encoded()[:60], 422, "the image cannot be decoded: it is damaged, cut short"),
        (encoded("JPEG")[:300], 422, "the image's header is damaged"),
        (encoded("JPEG")[:900], 422, "the image cannot be decoded"),
        (encoded()[:20], 422, "the image"),
        (bomb(12_000), 413, "the image has more than 50,000,000 pixels; send a smaller one"),
        (bytes(11_000_000), 413, "the body has 11,000,000 bytes; at most 10,000,000 are read"),
        (encoded("TIFF")[:8] + b"\xff" * 200, 422, "the image"),
    ],
    ids=["empty", "text", "program", "cut", "cut header", "cut jpeg", "head", "bomb", "large", "tiff"],
)
def test_bodies_that_are_not_classified(body: bytes, status: int, said: str, served: server.Server) -> None:
    found, headers, answer = ask(served, "/predict", body)
    assert found == status and list(answer) == ["error"] and answer["error"].startswith(said)
    assert headers["Connection"] == "close"
    assert ask(served, "/predict", encoded())[0] == 200


def test_jpegs_of_many_scans() -> None:
    """Each scan is a pass over all pixels, so that a small file could keep the server busy for hours."""
    data = encoded("JPEG", progressive=True)
    check(data)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(Rejected, match="a JPEG of more than 100 scans"):
        check(data[:last] + data[last:-2] * 100 + data[-2:])


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ("GET /nothing HTTP/1.1", 404, "there is nothing here; ask for /, /predict, /labels, /examples, /health"),
        ("GET /../../../etc/passwd HTTP/1.1", 404, "there is nothing here"),
        ("GET /examples/1 HTTP/1.1", 404, "there is nothing here"),
        ("GET /examples/../page.html HTTP/1.1", 404, "there is nothing here"),
        ("GET //[ HTTP/1.1", 404, "there is nothing here"),
        ("GET /predict HTTP/1.1", 405, "this is not answered; send a POST request"),
        ("DELETE /labels HTTP/1.1", 405, "this is not answered; send a GET request"),
        ("BREW / HTTP/1.1", 501, "Unsupported method ('BREW')"),
        ("hello", 400, "Bad request syntax ('hello')"),
        ("GET / HTTP/9.9", 505, "Invalid HTTP version (9.9)"),
        ("GET /" + "a" * 70_000 + " HTTP/1.1", 414, "Too Long"),
        ("GET / HTTP/1.1\r\nA: " + "a" * 70_000, 431, "Line too long"),
        ("POST /predict HTTP/1.1", 411, "Content-Length: is missing; send the image as the body"),
        ("POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked", 411, "Content-Length: is missing"),
        ("POST /predict HTTP/1.1\r\nContent-Length: -1", 400, "Content-Length: must be a number of bytes"),
        ("POST /predict HTTP/1.1\r\nContent-Length: " + "9" * 30, 413, "the body has 99,999"),
        ("POST /predict HTTP/1.1\r\nContent-Length: 99", 400, "the body ended after 0 of 99 bytes"),
        ("POST /predict HTTP/1.1\r\nContent-Length: 9\r\nContent-Type: multipart/form-data", 415, "the body is a form"),
    ],
)
def test_requests_that_are_not_answered(request_: str, status: int, said: str, served: server.Server) -> None:
    host = "" if request_ == "hello" else "\r\nHost: localhost"
    head, _, body = send(served, f"{request_}{host}\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, head
    said_there = json.loads(body)["error"]
    assert said in said_there and str(Path.home()) not in said_there
    if status == 405:
        assert f"Allow: {said.split()[-2]}".encode() in head


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Host": "["}, 421),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_other_sites_may_not_ask(headers: dict[str, str], status: int, served: server.Server) -> None:
    """Neither by a name of theirs that leads to this machine, nor from their pages."""
    assert ask(served, "/labels", **headers)[0] == status


def test_a_flood(served: server.Server, tiny: Network) -> None:
    """One image is classified and 16 wait; the others are told to come later, and the server recovers."""
    network: Any = tiny.module
    network.may_go_on.clear()
    found: list[int] = []
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, served, "/predict", encoded()) for _ in range(40)]
        for one in asked:
            one.add_done_callback(lambda done: found.append(done.result()[0]))
        wait_for(lambda: len(found) == 40 - 1 - MOST_WAITING)
        assert set(found) == {503} and ask(served, "/health")[0] == 200
        network.may_go_on.set()
    assert sorted(found) == [200] * (1 + MOST_WAITING) + [503] * (39 - MOST_WAITING)
    refused = next(one.result() for one in asked if one.result()[0] == 503)
    assert refused[1]["Retry-After"] == "1" and refused[2]["error"].startswith("16 images are waiting already")
    assert ask(served, "/predict", encoded())[0] == 200


def test_slow_clients(served: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a time in all, not per byte, and do not keep others from answers."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.4)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for start, answer in ((head, b"HTTP/1.1 408 "), (b"GET / HT", b"")):
        with socket.create_connection(("127.0.0.1", served.server_port), timeout=60) as slow_one:
            slow_one.sendall(start)
            assert ask(served, "/predict", encoded())[0] == 200
            slow_one.setblocking(False)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    said = slow_one.recv(1 << 16)
                    break
                slow_one.send(b"x")
                time.sleep(0.02)
            assert said.startswith(answer) and bool(said) == bool(answer)
    assert ask(served, "/health")[0] == 200


def test_many_connections(served: server.Server) -> None:
    """More are closed at once; those that end make room."""
    held = [socket.create_connection(("127.0.0.1", served.server_port)) for _ in range(server.MOST_CONNECTIONS)]
    try:
        wait_for(lambda: served.connections._value == 0)
        with contextlib.suppress(ConnectionError):
            status, _, answer = ask(served, "/health")
            assert status == 503 and answer["error"].startswith("there are 64 connections already")
    finally:
        for one in held:
            one.close()
    wait_for(lambda: served.connections._value == server.MOST_CONNECTIONS)
    assert ask(served, "/health")[0] == 200


def test_bodies_that_are_asked_for(served: server.Server) -> None:
    """A client that waits for 100 Continue, as curl does, sends nothing in vain."""
    for size, said in ((len(encoded()), b"HTTP/1.1 100 "), (20_000_000, b"HTTP/1.1 413 ")):
        with socket.create_connection(("127.0.0.1", served.server_port), timeout=60) as one:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
            )
            one.sendall(head.encode())
            assert one.recv(1 << 16).startswith(said)
            if size < 20_000_000:
                one.sendall(encoded())
                assert one.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_bugs_and_stopping(
    served: server.Server, tiny: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A bug's traceback is printed here, and not sent; requests that wait are told that the server stops."""
    with monkeypatch.context() as patched:
        patched.setattr("tools.serve.classifier.best_answers", lambda *_: 1 / 0)
        status, _, answer = ask(served, "/predict", encoded())
    assert status == 500 and answer == {"error": "the server has failed; its terminal says how"}
    assert "ZeroDivisionError" in capsys.readouterr().err
    network: Any = tiny.module
    network.may_go_on.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, served, "/predict", encoded())
        wait_for(lambda: served.classifier._places._value == MOST_WAITING)
        second = pool.submit(ask, served, "/predict", encoded())
        wait_for(lambda: served.classifier._places._value == MOST_WAITING - 1)
        wait_for(lambda: served.classifier._thread._work_queue.qsize() == 1)
        closing = pool.submit(served.classifier.close)
        assert second.result()[2] == {"error": "the server is stopping"}
        network.may_go_on.set()
        assert first.result()[0] == 200 and closing.result() is None
    assert ask(served, "/predict", encoded())[0] == 503


def test_orientation(tiny: Network) -> None:
    """The answer says that it was ignored, unless images are turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("JPEG", exif=exif)
    for upright in (False, True):
        classifier = Classifier(tiny, CLASSES, 9, upright)
        answer = classifier.answer(data)
        assert answer.get("remark") == (None if upright else TURNED) and len(answer["top"]) == 3  # type: ignore[arg-type]
        assert "remark" not in classifier.answer(encoded("JPEG"))
        classifier.close()


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = Checked(PAGE.decode().replace("<!doctype html>", ""))
    assert page.addresses == ["data:,"] and not re.search(rb"https?:|//\w+\.", PAGE)
    assert not re.search(rb"\son\w+=|style=|innerHTML|eval", PAGE)
    assert POLICY.count("sha256-") == 2


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
    Path("photos/e.png").write_bytes(encoded() + bytes(examples.MOST_BYTES))
    assert [(one.shown, one.kind) for one in examples.of_files("photos")] == [("a", "image/png"), ("d", "image/webp")]
    with pytest.raises(ConfigError, match=r"nowhere: no such file or folder"):
        examples.of_files("nowhere")


@slow
def test_the_program(named_run: Path) -> None:
    """A process that is attacked answers afterwards, has not grown much, and ends when it is told to."""
    command = [sys.executable, "-m", "tools.serve", str(named_run), "--port=0", "--host=localhost"]
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
        assert most_kb() - before < 800_000  # an image and 17 bodies; three images at once take twice that
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
        for name, seen in (("text.png", "Not classified: the body is not an image"), ("photo.jpg", "Most probable")):
            page.call("DOM.setFileInputFiles", objectId=element, files=[str(tmp_path / name)])
            page.wait_for(f"document.querySelector('main').innerText.includes('{seen}')")
            assert page.run("document.querySelector('#answer').hidden") == (name == "text.png")
        faults = [one["params"] for one in page.said if one["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert all("415" in json.dumps(one) for one in faults), faults
        asked = [one["params"]["request"]["url"] for one in page.said if one["method"] == "Network.requestWillBeSent"]
        assert all(one.startswith((to.url, f"blob:{to.url}", "data:")) for one in asked)


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
            (["run", "--host=192.0.2.1"], "cannot be used on 192.0.2.1 (Cannot assign requested address)"),
            (["run", "--port=0", "--examples=none"], "none: no such file or folder"),
            (["run", "--port=0"], "run: is not a run folder"),
            (["run", "--crop=8"], "--crop: for the file of a network; a run knows its own"),
            (["net.onnx", "--checkpoint=best"], "--checkpoint best: is for a run; net.onnx is no folder"),
            (["net.onnx", "--port=0"], "net.onnx: no such folder"),
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
