"""On several nodes, a run's first lines name NCCL's network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from composer.utils import dist

from training import network

PLUGIN = "node0:172:172 [0] NCCL INFO NET/Plugin: Loaded net plugin Libfabric (v11)\n"
IB = (
    "node0:7:7 [0] NCCL INFO NCCL version 2.26.2+cuda12.6\n"
    "node0:7:19 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [RO]; OOB eth0:10.0.0.1<0>\n"
    "node0:7:19 [0] NCCL INFO Using network IB\n"
)
NEWER = (
    "node0:7:7 [0] NCCL INFO Initialized NET plugin IB\n"
    "node0:7:7 [0] NCCL INFO Assigned NET plugin IB to comm\n"
    "node0:7:7 [0] NCCL INFO GIN/Plugin: Could not find: libnccl-gin.so\n"
)
EFA = (
    f"{PLUGIN}node0:172:172 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa (found 4 nics)\n"
    "node0:172:172 [0] NCCL INFO Using network AWS Libfabric\n"
)
TCP = EFA.replace("is efa, fabric is efa", "is tcp, fabric is tcp")
SOCKET = (
    "node0:7:19 [0] NCCL INFO NET/IB : No device found.\n"
    "node0:7:19 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>\n"
    "node0:7:19 [0] NCCL INFO Assigned NET plugin Socket to comm\n"
    "node0:7:19 [0] NCCL INFO Using network Socket\n"
)


@pytest.mark.parametrize(
    ("log", "name"),
    [(IB, "IB"), (NEWER, "IB"), (EFA, "AWS Libfabric (efa)"), (EFA.replace("AWS ", ""), "Libfabric (efa)")],
)
def test_a_fast_network_is_named(log: str, name: str) -> None:
    assert network.sentence(2, log) == f"NCCL's network between the 2 nodes: {name}"


@pytest.mark.parametrize(("log", "name"), [(SOCKET, "Socket"), (TCP, "AWS Libfabric (tcp)")])
def test_a_slow_network_is_warned_of(log: str, name: str) -> None:
    said = network.sentence(4, log)
    assert said.startswith(f"NCCL's network between the 4 nodes: {name}, much slower than InfiniBand or EFA.")
    assert "NCCL_DEBUG=INFO before the command" in said


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 of two nodes, whose first collective makes NCCL write the log that its environment asks for."""

    def first_collective(_: object) -> None:
        if file := os.environ.get("NCCL_DEBUG_FILE"):
            assert os.environ["NCCL_DEBUG"] == "INFO" and os.environ["NCCL_DEBUG_SUBSYS"] == "INIT,NET"
            Path(file).write_text(SOCKET)

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_local_world_size", lambda: 1)
    monkeypatch.setattr(dist, "all_gather_object", first_collective)
    for name in ("NCCL_DEBUG", "NCCL_DEBUG_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("two_nodes")
def test_the_log_is_read_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NCCL_DEBUG_SUBSYS", "COLL")
    before = dict(os.environ)
    with network.told("gpu"):
        assert list(tmp_path.iterdir())
    assert capsys.readouterr().out.startswith("NCCL's network between the 2 nodes: Socket, much slower")
    assert dict(os.environ) == before and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("two_nodes")
def test_a_log_without_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(dist, "all_gather_object", lambda _: None)
    with network.told("gpu"):
        pass
    assert "nodes: unknown; NCCL_DEBUG=INFO before the command" in capsys.readouterr().out


@pytest.mark.usefixtures("two_nodes")
@pytest.mark.parametrize("why", ["the user's own log", "a CPU", "another rank", "one node"])
def test_nothing_is_asked(why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    if why == "the user's own log":
        monkeypatch.setenv("NCCL_DEBUG", "WARN")
    if why == "another rank":
        monkeypatch.setattr(dist, "get_global_rank", lambda: 1)
    if why == "one node":
        monkeypatch.setattr(dist, "get_local_world_size", lambda: 2)
        monkeypatch.setattr(dist, "all_gather_object", lambda _: pytest.fail("a collective, for nothing"))
    with network.told("cpu" if why == "a CPU" else "gpu"):
        assert "NCCL_DEBUG_FILE" not in os.environ
    assert capsys.readouterr().out == ""
