"""The HTTP server: a page, the network's labels, and answers to images, each request on a connection of its own."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore
from typing import Any

from tools.serve.address import is_local
from tools.serve.classifier import SEND, Classifier, Rejected
from tools.serve.examples import Example
from tools.serve.page import PAGE, POLICY

MOST_BYTES = 10_000_000  # of a body
MOST_CONNECTIONS = 64  # at a time
REQUEST_SECONDS = 30.0  # for a client to send its request
LINGER_SECONDS = 5.0  # for a client to read an answer that it gets before its request was read
LOCAL = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Connection": "close",
}
_NAME = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::\d*)?")  # in a Host header

Route = tuple[str, "Callable[[Handler], None]"]
"""A method, and what answers it."""


class Server(ThreadingHTTPServer):
    """A thread per connection, up to MOST_CONNECTIONS, until `close`.

    Args:
        bound_socket: where to listen.
        classifier: answers images.
        examples: images for the page.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, bound_socket: socket.socket, classifier: Classifier, examples: list[Example]) -> None:
        self.classifier, self.examples = classifier, examples
        self.connections = BoundedSemaphore(MOST_CONNECTIONS)
        self.address_family = bound_socket.family
        super().__init__(bound_socket.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound_socket
        self.host, self.server_port = bound_socket.getsockname()[:2]
        self.is_local = is_local(bound_socket)
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}"
        self.server_activate()

    def close(self) -> None:
        """Stop listening, and wait a moment until the clients that are connected have their answers."""
        self.server_close()
        self.classifier.close()
        end = time.monotonic() + 2
        for _ in range(MOST_CONNECTIONS):
            self.connections.acquire(timeout=max(0.0, end - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; close it if there are too many."""
        if self.connections.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        answer = _json({"error": f"there are {MOST_CONNECTIONS} connections already; try again in a few seconds"})
        kind = f"Content-Type: application/json\r\nContent-Length: {len(answer)}\r\nConnection: close"
        head = f"HTTP/1.1 503 Service Unavailable\r\n{kind}\r\n\r\n"
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(head.encode() + answer)
        self.close_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection once its client has read the answer; closing with unread bytes would discard it."""
        end, left = time.monotonic() + LINGER_SECONDS, 4 * MOST_BYTES
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < end:
                request.settimeout(LINGER_SECONDS)
                if not (count := len(request.recv(1 << 16))):
                    break
                left -= count
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a bug; a client that goes away is none."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Incoming(io.RawIOBase):
    """The bytes of a connection; TimeoutError if they do not come within `seconds` in all."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection, self.end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Answers one request; errors are {"error": a sentence}."""

    protocol_version = default_request_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Incoming(self.connection, REQUEST_SECONDS))

    def handle_expect_100(self) -> bool:
        """Let `predict` ask for the body, after its checks."""
        return True

    def do(self) -> None:
        """Answer any method."""
        try:
            check_sender(self.server, self.headers.get("Host", ""), self.headers.get("Origin"))
            method, answer = self.route()
            if self.command != method and (self.command, method) != ("HEAD", "GET"):
                why = f"this is not answered; send a {method} request"
                raise Rejected(HTTPStatus.METHOD_NOT_ALLOWED, why, Allow=method)
            answer(self)
        except Rejected as error:
            self.reply(error.status, _json({"error": str(error)}), **error.headers)
        except OSError:  # the client is too slow, or gone
            raise
        except Exception:
            traceback.print_exc()
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has failed; its terminal says how")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do

    def route(self) -> Route:
        """Return what answers this path; Rejected if there is nothing."""
        path, examples = self.path.partition("?")[0], self.server.examples
        if path in ROUTES:
            return ROUTES[path]
        numbers = [f"/examples/{number}" for number in range(len(examples))]
        if path not in numbers:
            raise Rejected(HTTPStatus.NOT_FOUND, f"there is nothing here; ask for {', '.join(ROUTES)}")
        one = examples[numbers.index(path)]
        return "GET", lambda handler: handler.reply(HTTPStatus.OK, one.data, one.kind)

    def predict(self) -> None:
        size = self.body_size()
        with self.server.classifier.place():
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(HTTPStatus.CONTINUE)
                self.end_headers()
            try:
                body = self.rfile.read(size)
            except TimeoutError as error:
                why = f"the body did not come within {REQUEST_SECONDS:g} seconds"
                raise Rejected(HTTPStatus.REQUEST_TIMEOUT, why) from error
            if len(body) < size:
                raise Rejected(HTTPStatus.BAD_REQUEST, f"the body ended after {len(body):,} of {size:,} bytes")
            answer = self.server.classifier.answer(body)
        self.reply(HTTPStatus.OK, _json(answer))

    def body_size(self) -> int:
        """Return the size of the body in bytes; Rejected if it is not given, or none of an image."""
        text = self.headers.get("Content-Length")
        if text is None:
            why = "Content-Length: is missing; send the image as the body, as curl --data-binary @cat.jpg does"
            raise Rejected(HTTPStatus.LENGTH_REQUIRED, why)
        if not (text.isascii() and text.isdecimal()):
            raise Rejected(HTTPStatus.BAD_REQUEST, "Content-Length: must be a number of bytes")
        size = int(text[:20])
        if size > MOST_BYTES:
            why = f"the image has {size:,} bytes; send one of at most {MOST_BYTES:,}"
            raise Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
        if size == 0:
            raise Rejected(HTTPStatus.BAD_REQUEST, f"the body is empty; {SEND}")
        if self.headers.get_content_maintype() == "multipart":
            why = "the body is a form; send the image itself, as curl --data-binary @cat.jpg does"
            raise Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, why)
        return size

    def reply(self, status: HTTPStatus, content: bytes, kind: str = "application/json", **more: str) -> None:
        self.close_connection = True
        self.connection.settimeout(REQUEST_SECONDS)
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | HEADERS | more
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Send an error as JSON (called by the base class, too)."""
        status = HTTPStatus(code)
        self.reply(status, _json({"error": message or status.phrase}))

    def version_string(self) -> str:
        return "tools.serve"

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a flood would fill the disk."""


def check_sender(server: Server, host: str, origin: str | None) -> None:
    """Reject what another site sends through a visitor's browser, also under a name that it has for this machine."""
    name = _NAME.fullmatch(host)  # with any port: it may be that of a tunnel
    if server.is_local and (name is None or name[1].strip("[]").lower() not in (*LOCAL, server.host)):
        raise Rejected(HTTPStatus.MISDIRECTED_REQUEST, "Host: must be localhost or 127.0.0.1, as this server is local")
    if origin is not None and origin.partition("://")[2] != host:
        raise Rejected(HTTPStatus.FORBIDDEN, "Origin: pages of other sites may not ask this server")


def _json(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _labels(server: Server) -> object:
    network = server.classifier.network
    names = list(server.classifier.called)
    return {"network": network.called, "classes": list(network.classes), "names": names}


def _get(content: Callable[[Server], object]) -> Route:
    return "GET", lambda handler: handler.reply(HTTPStatus.OK, _json(content(handler.server)))


ROUTES: dict[str, Route] = {
    "/": ("GET", lambda handler: handler.reply(HTTPStatus.OK, PAGE, "text/html; charset=utf-8")),
    "/predict": ("POST", Handler.predict),
    "/labels": _get(_labels),
    "/examples": _get(lambda server: [example.shown for example in server.examples]),
    "/health": _get(lambda _server: {"status": "ok"}),
}
