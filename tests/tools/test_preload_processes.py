"""Copies to a local disk by processes that are killed, meet each other, or wait for one another."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.transport.preload import copy
from tests.runs import ROOT, wait_for
from tests.tools.copies import is_complete, tree
from tests.tools.test_preload import folder

pytestmark = pytest.mark.slow

__all__ = ["folder"]

PROGRAM = """
import os, signal, sys, threading
from common.errors import DataError
from loaders.transport.preload import preload_once_per_node
from loaders.transport.preloading.records import Records

source, after, *destinations = sys.argv[1:]
finish, files, one_at_a_time = Records.note, [], threading.Lock()

def note(self, name, entry):
    # As a kill from outside would: in the middle, while other threads copy other files, which they cannot finish.
    with one_at_a_time:
        finish(self, name, entry)
        files.append(name)
        if len(files) == int(after):
            os.kill(os.getpid(), signal.SIGSTOP)

Records.note = note
print("ready", flush=True)
try:
    for destination in destinations:
        print(preload_once_per_node(source, destination), flush=True)
except DataError as error:
    sys.exit(f"sentence: {error}")
"""
NEVER = 0


@pytest.fixture
def start() -> Iterator:
    """Starts processes that end with the test."""
    begun: list[subprocess.Popen] = []

    def begin(source: Path, after: int, *destinations: Path, rank: int = 0) -> subprocess.Popen:
        words = [sys.executable, "-c", PROGRAM, str(source), str(after), *map(str, destinations)]
        settings = os.environ | {"RANK": str(rank), "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(words, env=settings, text=True, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen) -> bool:
    """Whether a process stands still where PROGRAM lets it stop."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_killed_copy_is_not_complete_and_goes_on(folder: Path, tmp_path: Path, start) -> None:
    """kill -9 in the middle: not complete, and files that were there already keep their inodes, if undamaged."""
    destination = tmp_path / "copy"
    process = start(folder, 10, destination)
    wait_for(lambda: stopped(process), process=process)
    process.kill()
    process.wait()
    journal = (destination / ".preload/journal.jsonl").read_text()
    noted = [json.loads(line)[0] for line in journal.splitlines()]
    inodes = {name: (destination / name).stat().st_ino for name in noted}
    assert 10 <= len(noted) < 32 and not is_complete(destination, str(folder))
    damaged = destination / noted[0]
    damaged.write_bytes(b"x" * damaged.stat().st_size)  # as a power failure may: the right length, other bytes
    assert copy(str(folder), destination).copied_files == 32 - len(noted) + 1
    assert tree(destination) == tree(folder) and is_complete(destination, str(folder))
    assert all((destination / name).stat().st_ino == inodes[name] for name in noted[1:])


def test_two_processes_at_once(folder: Path, tmp_path: Path, start) -> None:
    """One copies, the other waits for it and copies nothing."""
    destination = tmp_path / "copy"
    first = start(folder, 10, destination)
    wait_for(lambda: stopped(first), process=first)
    second = start(folder, 1, destination)  # would stand still, if it copied
    assert second.stdout.readline() == "ready\n" and "another process is copying" in second.stdout.readline()
    assert not is_complete(destination, str(folder))
    first.send_signal(signal.SIGCONT)
    assert [process.communicate(timeout=300)[0].splitlines()[-1] for process in (first, second)] == [
        str(destination)
    ] * 2
    assert tree(destination) == tree(folder)


def test_ranks_of_a_node(folder: Path, tmp_path: Path, start) -> None:
    """Rank 0 copies and rank 1 waits, through two calls; neither copies a file of the other's again."""
    destinations = [tmp_path / "one", tmp_path / "two"]
    copying = start(folder, 10, *destinations, rank=0)
    wait_for(lambda: stopped(copying), process=copying)
    waiting = start(folder, 1, *destinations, rank=1)  # would stand still if it copied
    assert waiting.stdout.readline() == "ready\n"
    copying.send_signal(signal.SIGCONT)
    printed = "".join(f"{path}\n" for path in destinations)
    assert waiting.communicate(timeout=300) == (printed, "")
    assert copying.communicate(timeout=300) == (f"ready\n{printed}", "")
    assert all(is_complete(path, str(folder)) for path in destinations)


def test_the_copying_rank_dies(folder: Path, tmp_path: Path, start) -> None:
    """The rank that waits continues its copy, unless the launcher ends it."""
    destination = tmp_path / "copy"
    copying = start(folder, 10, destination, rank=0)
    wait_for(lambda: stopped(copying), process=copying)
    waiting = start(folder, NEVER, destination, rank=1)
    assert waiting.stdout.readline() == "ready\n"
    copying.kill()
    assert waiting.communicate(timeout=300) == (f"{destination}\n", "")
    assert is_complete(destination, str(folder)) and tree(destination) == tree(folder)


def test_the_copying_rank_fails(folder: Path, tmp_path: Path, start) -> None:
    """The rank that waits fails with the same message, instead of trying again."""
    source = shutil.copytree(folder, tmp_path / "source")
    copying = start(source, 10, tmp_path / "copy")
    wait_for(lambda: stopped(copying), process=copying)
    waiting = start(source, NEVER, tmp_path / "copy")
    assert waiting.stdout.readline() == "ready\n" and "another process is copying" in waiting.stdout.readline()
    shutil.rmtree(source)  # another attempt would say that there is no such folder
    copying.send_signal(signal.SIGCONT)
    messages = [process.communicate(timeout=300)[1] for process in (waiting, copying)]
    assert messages[0] == messages[1] and re.match(rf"sentence: {source}/\S+: is missing", messages[0])
    assert not is_complete(tmp_path / "copy", str(source))
