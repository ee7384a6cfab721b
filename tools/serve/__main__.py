"""Serve a trained network to browsers and programs.

    python -m tools.serve runs/NAME
    python -m tools.serve net.onnx --port 8080
    curl --data-binary @cat.jpg http://127.0.0.1:8000/predict

The answers are those of tools.predict. POST /predict takes an image as its body, GET /labels names the classes, GET
/health says that the server works. Images are classified one by one, of at most 10 MB and 50 million pixels; while 16
wait, more are rejected with status 503. Ctrl-C stops it.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from socket import socket
from types import FrameType

from common import command
from common.errors import ConfigError, counted
from common.terminal import not_negative, positive
from tools.networks.options import add_network_options, network_problems, open_given
from tools.serve.address import bound, is_local

OPEN = "anyone who can reach this machine can ask it: there is neither a password nor encryption"


class Terminated(BaseException):
    """SIGTERM was received; no Exception, which a server survives."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for options that exclude each other."""
    parser = command.parser("tools.serve", __doc__)
    add = parser.add_argument
    add_network_options(parser)
    add("--port", type=_port, default=8000, help="0: a free one (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of this machine (default: %(default)s)")
    add("--top", type=positive, default=5, metavar="K", help="classes per image (default: %(default)s)")
    add("--upright", action="store_true", help="turn images by their orientation tag, which training ignores")
    shown = "show the first 8 images of this folder on the page (default: of the run's val/, for this machine only)"
    add("--examples", metavar="FOLDER", help=shown)
    given = parser.parse_args(argv)
    if problems := network_problems(given):
        raise ConfigError(*problems)
    return given


def _port(word: str) -> int:
    port = not_negative(word)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{word} given, but it must be 65535 or less")
    return port


def main(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; return 0 after SIGTERM."""
    given = parse(argv)
    with contextlib.closing(bound(given.host, given.port)) as listening:
        return serve(given, listening)


def serve(given: argparse.Namespace, listening: socket) -> int:
    """Open the network and answer requests, as `main`."""
    # Imported late: torch takes seconds, and mistakes are reported before.
    from tools.networks.runs import load_run
    from tools.serve import examples
    from tools.serve.classifier import Classifier
    from tools.serve.server import Server

    command.restore_ctrl_c()
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", module="PIL")  # of images with odd metadata
    try:
        shown = examples.of_files(given.examples) if given.examples else []
        network, called = open_given(given)
        if not given.examples and is_local(listening) and given.network.is_dir():
            shown = examples.of_run(load_run(given.network, given.outside_code).config)
        server = Server(listening, Classifier(network, called, given.top, given.upright), shown)
        with contextlib.closing(server):
            classes = counted(len(network.classes), "class", "classes")
            print(f"{network.called}: {classes}, images of {network.crop_size} px")
            print(f"serving on {server.url}; Ctrl-C stops it", flush=True)
            if not server.is_local:
                print(OPEN, file=sys.stderr)
            server.serve_forever()
    except Terminated:
        print("stopped", file=sys.stderr)
    return 0


def _terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


run = partial(command.run, main, stopped="stopped")

if __name__ == "__main__":
    sys.exit(run())
