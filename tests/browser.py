"""A real headless Chromium for tests of pages, driven over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.runs import started

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
"""The browser that is installed; None if there is none."""

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root does not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-pipe",
    "about:blank",
)
SECONDS = 60


class Browser:
    """One page of a browser with an empty profile; a context manager that ends it.

    Args:
        folder: for the profile.
    """

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        theirs, self._write = os.pipe()
        self._read, their_end = os.pipe()
        # It reads commands from descriptor 3, and writes answers to 4.
        script = f'exec "$@" 3</dev/fd/{theirs} 4>/dev/fd/{their_end}'
        command = ["sh", "-c", script, "sh", PROGRAM, f"--user-data-dir={folder}", *OPTIONS]
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        self._process = subprocess.Popen(command, pass_fds=(theirs, their_end), start_new_session=True, **quiet)
        started.append(self._process)
        os.close(theirs)
        os.close(their_end)
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self.said: list[dict[str, Any]] = []
        """Events, such as what the page writes to the console."""

    def __enter__(self) -> Browser:
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        os.write(
            self._write, json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0"
        )
        while (message := self._next()).get("id") != number:
            self.said.append(message)
        assert "error" not in message, message
        return message["result"]

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        self.wait_for(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def wait_for(self, script: str) -> Any:
        """Return the value of an expression once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited in vain for {script}\n{self.run('document.body.innerText')}")

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def screenshot(self, file: Path, scheme: str = "light", width: int = 900) -> None:
        """Write a picture of the page, as a PNG."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        time.sleep(0.4)  # transitions
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            data = os.read(self._read, 1 << 16) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
