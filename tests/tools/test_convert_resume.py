"""An interrupted, killed or failed conversion resumes, on disk and in S3, and leaves no worker."""

import contextlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.storage.unfinished import refuse_unfinished
from tests.runs import wait_for
from tests.s3 import s3_client
from tests.tools.conversions import convert, files_of, images_of, make_source, originals_of
from tools.convert.__main__ import main


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source"))


@contextlib.contextmanager
def fed(pipe: Path, data: bytes) -> Iterator[None]:
    """Feed `data` to each reader of the named pipe; before and after, reading it blocks forever."""
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            with pipe.open("wb") as out:
                if not over.is_set():
                    out.write(data)
            while not over.is_set() and _is_open(pipe):  # otherwise its reader gets the image twice
                time.sleep(0.01)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb"):
            thread.join()


def _is_open(path: Path) -> bool:
    """Return whether any process has a file open; one blocked in opening a named pipe has not."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry) == str(path):
                return True
    return False


@pytest.fixture
def stalling(source: Path, tmp_path: Path) -> Path:
    """A data set in which one image is a named pipe, so that its worker blocks."""
    root = tmp_path / "stalling"
    shutil.copytree(source, root)
    path = sorted((root / "train" / "dog").iterdir())[3]
    path.unlink()
    os.mkfifo(path)
    return root


@contextlib.contextmanager
def stalled(words: list[str], destination: Path) -> Iterator[BaseProcess]:
    """Run the program in its own process until it blocks; all shards of train/ but that of the pipe are written."""
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(words)))
    process.start()
    try:
        notes = destination / ".convert" / "train"
        wait_for(lambda: len(list(notes.glob("*.json"))) >= 3 or not process.is_alive(), seconds=300)
        assert process.is_alive()
        yield process
    finally:
        process.kill()
        process.join()


def workers_of(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found.append(int(status.parent.name))
    return found


def wait_until_gone(processes: list[int]) -> None:
    wait_for(lambda: not any(map(_alive, processes)), seconds=300)


def _alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_interrupted_and_killed_and_damaged(stalling: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = next(path for path in stalling.rglob("*") if path.is_fifo())
    image = (stalling / "train" / "dog" / "0000.jpeg").read_bytes()
    out = tmp_path / "out"
    words = [str(stalling), str(out), "--shard-mb", "0.008", "--workers", "2"]

    with stalled(words, out) as process:
        workers = workers_of(process.pid or 0)
        assert len(workers) == 2
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(300)
        assert process.exitcode == 130
        wait_until_gone(workers)
    assert "repeat the command to continue" in capfd.readouterr().err
    finished = {path: path.stat() for path in (out / "train").glob("shard.*")}
    assert len(finished) >= 3

    with stalled(words, out) as process:
        workers = workers_of(process.pid or 0)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(300)
        wait_until_gone(workers)
    assert not list(out.rglob("index.json"))

    capfd.readouterr()
    with pytest.raises(DataError, match="is unfinished") as unfinished:
        refuse_unfinished(str(out))
    assert str(unfinished.value).endswith(f"type: {shlex.join(['python', '-m', 'tools.convert', *words])}")
    assert main([*words, "--hash", "md5"]) == 1
    error = capfd.readouterr().err
    assert "unfinished conversion with other options (hash_name sha1)" in error and f"rm -r {out}/.convert" in error

    notes = {path.stem for path in (out / ".convert" / "train").glob("*.json")}
    noted = sorted(path for path in finished if path.name.split(".")[1] in notes)
    damaged = noted[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with fed(pipe, image):
        capfd.readouterr()
        assert main(words) == 1
        assert f"{damaged}: is damaged (its sha1 is not the recorded one)" in capfd.readouterr().err
        assert not list(out.rglob("index.json"))
        assert main(words) == 0
        assert "Continuing" in capfd.readouterr().out
        for path in noted[1:]:
            now = path.stat()
            assert (now.st_ino, now.st_mtime_ns) == (finished[path].st_ino, finished[path].st_mtime_ns)
        assert convert(stalling, tmp_path / "at once", "--shard-mb", 0.008) == 0
    assert files_of(out) == files_of(tmp_path / "at once")


def test_resuming_to_s3_and_converting_back(
    source: Path, s3_server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = s3_client()
    client.create_bucket(Bucket="images")
    client.put_bucket_versioning(Bucket="images", VersioningConfiguration={"Status": "Enabled"})
    root = shutil.copytree(source, tmp_path / "root")
    (root / "val" / "person" / "zzz.jpeg").write_bytes(b"\xff\xd8\xff no image")
    remote = "s3://images/a/set"
    assert convert(root, remote, "--shard-mb", 0.02, workers=1) == 1
    assert "zzz.jpeg: cannot be read as an image" in capfd.readouterr().err
    keys = {item["Key"] for item in client.list_objects_v2(Bucket="images")["Contents"]}
    assert "a/set/.convert/val/00000.json" in keys and not any(key.endswith("index.json") for key in keys)

    assert convert(root, remote, "--shard-mb", 0.02, "--skip-unreadable", workers=1) == 0
    versions = [item["Key"] for item in client.list_object_versions(Bucket="images")["Versions"]]
    shards = [key for key in versions if "/shard." in key]
    assert len(shards) == len(set(shards)) > 5, "a finished shard was uploaded twice"
    left = {item["Key"].removeprefix("a/set/") for item in client.list_objects_v2(Bucket="images")["Contents"]}
    assert {"train/index.json", "val/index.json", "classes.json", "skipped.txt"} < left
    assert not any(".convert" in key for key in left)
    assert images_of(remote, "val", tmp_path / "cache") == originals_of(source, "val")

    assert convert(remote, tmp_path / "back", "--local", tmp_path / "other", "--shard-mb", 0.05) == 0
    assert convert(source, tmp_path / "direct", "--shard-mb", 0.05) == 0
    for split in ("train", "val"):
        assert images_of(tmp_path / "back", split) == images_of(tmp_path / "direct", split)
