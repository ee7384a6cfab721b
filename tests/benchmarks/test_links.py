"""The benchmark's network: delayed and rate-limited links, removed at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.decentralized import main, methods
from benchmarks.links import DEVICE, Links, command, end, start
from config import UserError
from tests.runs import ROOT, wait_for

pytestmark = pytest.mark.slow

NAMESPACES = Path("/var/run/netns")


def left_over(parent: int) -> list[str]:
    """Return the namespaces that a process created and did not remove."""
    return [path.name for path in NAMESPACES.glob(f"bench-{parent}-*")]


def possible() -> bool:
    """Return whether this machine allows such a network."""
    try:
        with Links(2, 0.0) as links:
            links.limit(1)
    except UserError:
        return False
    return True


needs_namespaces = pytest.mark.skipif(not possible(), reason="needs root, namespaces, TUN devices and tbf")


@needs_namespaces
def test_a_link_has_a_delay_and_a_rate(tmp_path: Path) -> None:
    """An answer takes at least twice the delay; throughput is not tested."""
    with Links(2, 0.05) as links:
        links.limit(1)
        shown = subprocess.run(
            ["tc", "-n", links.names[0], "qdisc", "show", "dev", DEVICE], capture_output=True, text=True
        )
        assert "tbf" in shown.stdout
        assert "rate 1Gbit" in shown.stdout

        def answer() -> None:
            links.enter(1)
            with socket.create_server((links.address(1), 5000)) as server:
                (tmp_path / "listens").touch()
                connection = server.accept()[0]
                connection.sendall(connection.recv(100).upper())

        def ask() -> None:
            links.enter(0)
            wait_for((tmp_path / "listens").exists)
            connection = socket.create_connection((links.address(1), 5000), timeout=120)
            asked = time.monotonic()
            connection.sendall(b"hello")
            (tmp_path / "answer").write_bytes(connection.recv(100))
            assert time.monotonic() - asked >= 0.1

        answering = start(answer)
        assert os.waitpid(start(ask), 0)[1] == 0
        end(answering)
        assert (tmp_path / "answer").read_bytes() == b"HELLO"
        assert len(left_over(os.getpid())) == 2
    assert not left_over(os.getpid())


@needs_namespaces
def test_namespaces_are_removed_after_errors_and_signals() -> None:
    with pytest.raises(RuntimeError, match="inside"), Links(3, 0.0):
        raise RuntimeError("inside")
    assert not left_over(os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.decentralized"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: left_over(process.pid), process=process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    assert not left_over(process.pid)


def test_a_machine_that_does_not_allow_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Without ip and tc, and with an ip that is not permitted."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 1
    assert "there is no program ip here; type: apt-get install iproute2" in capsys.readouterr().err
    for name in ("ip", "tc"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'mount --make-shared failed: Operation not permitted' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    with pytest.raises(UserError, match=r"does not allow creating a network.*Operation not permitted.*Run as root"):
        command("ip", "netns", "add", "x")


@pytest.mark.parametrize("words", [["--nodes=1"], ["--gbits=fast"], ["--gbits=0"], ["--rounds=0"]])
def test_impossible_options(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "error:" in capsys.readouterr().err


def test_only_topologies_that_fit_are_compared() -> None:
    assert {name.split(",")[0] for name in methods(3)} == {"AllReduce", "complete"}
    assert len(methods(4)) == 6
