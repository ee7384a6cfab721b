"""An HTTP proxy for the tests' S3 server that injects faults by rules."""

import contextlib
import http.client
import random
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

PIECES = 20  # number of pieces of a slow answer
_DROPPED = {"connection", "transfer-encoding", "content-length", "server", "date"}


@dataclass
class Rule:
    """A fault for some of the requests.

    Args:
        fault: an HTTP status, e.g. 503; `hang` accepts and never answers; `drop` closes the connection; `cut` announces
            the whole content and sends half; `short` is half with a consistent length; `flip` changes one byte; `slow`
            waits `pause` seconds before each of 20 pieces.
        match: regular expression searched for in the path.
        share: fraction of the matching requests, drawn with the proxy's seed.
        times: maximum number of faults.
        code: S3's error code, if `fault` is a status.
        pause: seconds.
    """

    fault: int | str
    match: str = ""
    share: float = 1.0
    times: int | None = None
    code: str = "InternalError"
    pause: float = 0.1


@dataclass
class FaultProxy:
    """Listens on 127.0.0.1 inside its context, and records the GET requests.

    Args:
        target: the S3 server's address.
        rules: the first rule that applies to a GET decides its fault.
        seed: for the rules' shares.
    """

    target: str
    rules: list[Rule] = field(default_factory=list)
    seed: int = 0

    def __enter__(self) -> "FaultProxy":
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.ended = threading.Event()
        self._random, self._lock = random.Random(self.seed), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fault-proxy", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def choose(self, path: str) -> Rule | None:
        """Record a GET, and return the rule that applies to it."""
        with self._lock:
            self.asked.append(path)
            for rule in self.rules:
                if re.search(rule.match, path) and self._random.random() < rule.share and rule.times != 0:
                    rule.times = None if rule.times is None else rule.times - 1
                    self.failed.append(path)
                    return rule
        return None

    def count(self, match: str) -> int:
        """Return the number of GETs whose path matches."""
        return sum(bool(re.search(match, path)) for path in self.asked)


class _Server(ThreadingHTTPServer):
    """A thread per connection; errors of killed clients are not printed."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Forwards or fails the requests of one connection."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        rule = self.proxy.choose(self.path)
        if rule is None:
            self._answer(*self._forward())
        elif isinstance(rule.fault, int):
            body = f"<?xml version='1.0'?><Error><Code>{rule.code}</Code><Message>no</Message></Error>"
            self._answer(rule.fault, {"Content-Type": "application/xml"}, body.encode())
        elif rule.fault == "hang":
            self.proxy.ended.wait()
            self._close()
        elif rule.fault == "drop":
            self._close()
        else:
            self._spoil(rule)

    def do_PUT(self) -> None:
        self._answer(*self._forward())

    do_HEAD = do_DELETE = do_POST = do_PUT

    def _spoil(self, rule: Rule) -> None:
        """Send a faulty answer."""
        status, headers, body = self._forward()
        half = len(body) // 2
        if rule.fault == "short":
            self._answer(status, headers, body[:half])
        elif rule.fault == "flip":
            self._answer(status, headers, body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :])
        elif rule.fault == "cut":
            self._answer(status, headers, body, [body[:half]])
            self._close()
        elif rule.fault == "slow":
            size = len(body) // PIECES + 1
            self._answer(status, headers, body, [body[at : at + size] for at in range(0, len(body), size)], rule.pause)
        else:
            raise ValueError(rule.fault)

    def _forward(self) -> tuple[int, Mapping[str, str], bytes]:
        """Return the S3 server's answer: status, headers, content."""
        server = http.client.HTTPConnection(urllib.parse.urlsplit(self.proxy.target).netloc, timeout=120)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.request(self.command, self.path, content, dict(self.headers.items()))
        answer = server.getresponse()
        body = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _DROPPED}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        server.close()
        return answer.status, headers, body

    def _answer(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        pieces: list[bytes] | None = None,
        pause: float = 0.0,
    ) -> None:
        """Send an answer with the headers of `body`, in pieces."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client was killed or gave up
            for piece in [body] if pieces is None else pieces:
                time.sleep(pause)
                self.wfile.write(piece)

    def _close(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: tests read `failed`."""
