"""tools.serve: what is not answered, and limits against bombs, floods and slow clients."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.runs import wait_for
from tests.tools.serving import CLASSES, ask, bomb, encoded, restore, send, serving, tiny
from tools.networks.opened import Network
from tools.serve import server
from tools.serve.classifier import MOST_WAITING, TURNED, Classifier, Rejected, check
from tools.serve.examples import Example
from tools.serve.page import PAGE, POLICY

__all__ = ["restore", "tiny"]


@pytest.fixture
def served(tiny: Network) -> Iterator[server.Server]:
    """A server of a network without layers."""
    with serving(Classifier(tiny, CLASSES, 2, False), [Example(encoded(), "image/png", "one <b>")]) as made:
        yield made


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
        (b"", 400, "the body is empty; send a JPEG, PNG"),
        (b"hello", 415, "this is not an image; send a JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "this is not an image"),
        (encoded()[:60], 422, "the image cannot be decoded: it is damaged, cut short"),
        (encoded("JPEG")[:300], 422, "the image's header is damaged"),
        (encoded("JPEG")[:900], 422, "the image cannot be decoded"),
        (encoded()[:20], 422, "the image"),
        (bomb(12_000), 413, "the image has more than 50,000,000 pixels; send a smaller one"),
        (bytes(11_000_000), 413, "the image has 11,000,000 bytes; send one of at most 10,000,000"),
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
        ("POST /predict HTTP/1.1\r\nContent-Length: " + "9" * 30, 413, "the image has 99,999"),
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


@pytest.mark.slow
def test_slow_clients(served: server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a time in all, not per byte, and do not keep others from answers."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.5)
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
