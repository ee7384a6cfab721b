"""A server in this process, a network for it, and clients."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tools.networks.opened import Network
from tools.serve import server
from tools.serve.address import bound
from tools.serve.classifier import Classifier
from tools.serve.examples import Example

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


@contextlib.contextmanager
def serving(classifier: Classifier, shown: list[Example] | None = None) -> Iterator[server.Server]:
    made = server.Server(bound("127.0.0.1", 0), classifier, shown or [])
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.close()


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


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the program sets for its process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def tiny() -> Network:
    return Network("tiny", CLASSES, CLASSES, 10, 8, Brightness(), torch.device("cpu"))
