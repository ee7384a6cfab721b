"""Copies to a local disk by processes that are killed, meet each other, or wait for one another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.transport.preload import copy, preload_once_per_node
from loaders.transport.preloading import node
from tests.runs import ROOT, wait_for
from tests.tools.copies import is_complete, tree
from tests.tools.test_preload import folder

pytestmark = pytest.mark.slow

__all__ = ["folder"]

PROGRAM = """
import os, signal, sys
from common.errors import DataError
from loaders.transport.preload import preload_once_per_node
from loaders.transport.preloading.records import Records

source, after, *destinations = sys.argv[1:]
finish, files = Records.note, []

def note(self, name, entry):
    # As somebody's kill would: in the middle, other threads at work on other files.
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

    def begin(source: Path, after: int, *destinations: Path, rank: int = 0, ranks: int = 1) -> subprocess.Popen:
        words = [sys.executable, "-c", PROGRAM, str(source), str(after), *map(str, destinations)]
        env = {"LOCAL_RANK": rank, "RANK": rank, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": 1234, "PYTHONPATH": ROOT}
        settings = os.environ | {name: str(value) for name, value in env.items()}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(words, env=settings, text=True, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def journal(copied: Path) -> Path:
    return copied / ".preload/journal.jsonl"


def lines(copied: Path) -> int:
    """How many lines the journal of an unfinished copy has."""
    return journal(copied).read_bytes().count(b"\n")


def stopped(process: subprocess.Popen) -> bool:
    """Whether a process stands still where PROGRAM lets it stop."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_killed_copy_is_not_complete_and_goes_on(folder: Path, tmp_path: Path, start) -> None:
    """kill -9 in the middle: no manifest, and the files that were there already keep their inodes."""
    destination = tmp_path / "copy"
    process = start(folder, 10, destination)
    wait_for(lambda: stopped(process), process=process)
    process.kill()
    process.wait()
    done = lines(destination) - 1  # its head
    noted = [json.loads(line)["name"] for line in journal(destination).read_text().splitlines()[1:]]
    inodes = {name: (destination / name).stat().st_ino for name in noted}
    assert 10 <= done == len(noted) < 32 and not is_complete(destination, str(folder))
    assert not (destination / ".preload/manifest.json").exists()
    damaged = destination / noted[0]
    damaged.write_bytes(b"x" * damaged.stat().st_size)  # as a power failure may: the right length, other bytes
    assert copy(str(folder), destination).copied_files == 32 - done + 1
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
    """Rank 1 waits for rank 0, through two calls, however late it is; nobody but rank 0 says anything."""
    destinations = [tmp_path / "one", tmp_path / "two"]
    waiting = start(folder, NEVER, *destinations, rank=1, ranks=2)
    assert waiting.stdout.readline() == "ready\n"
    copying = start(folder, 10, *destinations, rank=0, ranks=2)
    wait_for(lambda: stopped(copying), process=copying)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.5)
    copying.send_signal(signal.SIGCONT)
    expected = "".join(f"{path}\n" for path in destinations)
    assert waiting.communicate(timeout=300) == (expected, "")
    assert copying.communicate(timeout=300) == (f"ready\n{expected}", "")
    assert all(is_complete(path, str(folder)) for path in destinations)


def test_the_copying_rank_dies(folder: Path, tmp_path: Path, start) -> None:
    """The rank that waits ends too, with a sentence."""
    waiting = start(folder, NEVER, tmp_path / "copy", rank=1, ranks=2)
    assert waiting.stdout.readline() == "ready\n"
    copying = start(folder, 10, tmp_path / "copy", rank=0, ranks=2)
    wait_for(lambda: stopped(copying), process=copying)
    copying.kill()
    said = waiting.communicate(timeout=300)[1]
    assert waiting.returncode == 1 and said.startswith("sentence:") and "has died" in said
    assert not is_complete(tmp_path / "copy", str(folder))


def test_the_copying_rank_fails(tmp_path: Path, start) -> None:
    """Both say why, at once."""
    waiting = start(tmp_path / "nowhere", NEVER, tmp_path / "copy", rank=1, ranks=2)
    assert waiting.stdout.readline() == "ready\n"
    copying = start(tmp_path / "nowhere", NEVER, tmp_path / "copy", rank=0, ranks=2)
    said = [process.communicate(timeout=300)[1] for process in (waiting, copying)]
    assert said[0] == said[1] and "nowhere: no such folder" in said[0]


def test_a_copying_rank_that_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run said counts for nothing."""
    monkeypatch.setattr(node, "BEGIN_SECONDS", 0.5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    word = node._word_file(tmp_path)
    word.parent.mkdir()
    word.write_text('{"call": 99, "state": "done", "why": ""}\n')
    os.utime(word, (1e9, 1e9))
    with pytest.raises(DataError, match="has not begun"):
        preload_once_per_node("/nowhere", tmp_path)
