"""Incomplete launcher variables and ranks that cannot connect give a sentence at once."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest

from common.errors import ConfigError, UserError
from config.world import NEEDED, world
from tests.s3 import free_port

WHOLE = dict(zip(NEEDED, ("4", "3", "2", "1", "7501", "host"), strict=True))


@pytest.mark.parametrize(
    ("there", "sizes"),
    [({}, (1, 1)), (WHOLE, (4, 2)), ({"WORLD_SIZE": "1", "RANK": "0"}, (1, 1)), ({"MASTER_PORT": "7501"}, (1, 1))],
)
def test_complete_variables(there: dict[str, str], sizes: tuple[int, int]) -> None:
    assert world(there) == sizes


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_WORLD_SIZE, LOCAL_RANK, MASTER_PORT or MASTER_ADDR. Start"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "type first: unset WORLD_SIZE RANK"),
        ({**WHOLE, "MASTER_ADDR": ""}, "or its launcher did not set MASTER_ADDR"),
        ({**WHOLE, "WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment: it must be a whole number"),
        ({**WHOLE, "RANK": "4"}, "RANK=4 in the environment: with WORLD_SIZE=4 it must be at most 3"),
        ({"RANK": "1"}, "RANK=1 in the environment: with WORLD_SIZE=1 it must be at most 0"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 in the environment: with LOCAL_WORLD_SIZE=1 it must be at most 0"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1 in the environment: it must be a whole number"),
    ],
)
def test_incomplete_variables(there: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        world(there)
    assert said in str(raised.value)


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that makes this process one of two ranks: takes the rank and the master's port."""

    def this_is(rank: int, port: int) -> None:
        there = dict(zip(NEEDED, ("2", str(rank), "2", str(rank), str(port), "127.0.0.1"), strict=True))
        for name, value in {**there, "NODE_RANK": "0"}.items():
            monkeypatch.setenv(name, value)

    return this_is


def test_rank_0_does_not_answer(two_ranks: Any) -> None:
    from training import devices

    before = signal.getsignal(signal.SIGTERM)
    two_ranks(1, free_port())
    with pytest.raises(UserError, match=r"rank 1 of 2 cannot reach rank 0 \(Connection refused\); read rank 0"):
        devices._join("cpu", 0.0)
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_such_host(two_ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on rank 0; torch would keep trying for dist_timeout."""
    from training import devices

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(devices, "PATIENCE", 0.0)
    two_ranks(0, 7501)
    with pytest.raises(UserError, match=r"rank 0 of 2 cannot reach rank 0 \(Name or service not known\)"):
        devices._join("cpu", 600.0)


def test_port_in_use(two_ranks: Any) -> None:
    from training import devices

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"MASTER_PORT={port}: rank 0 of 2 .*another program uses the port"):
            two_ranks(0, port)
            devices._join("cpu", 0.0)
