"""Runs from a failing S3: killed, restarted, stuck; their messages and the files that they leave."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from data import build_imagenet_dataspec
from tests.image_files import make_mds
from tests.loaders.proxy import FaultProxy, Rule
from tests.runs import COMPOSER, ROOT, metrics, run_main, small_yaml, start_main, wait_for
from tests.s3 import upload, use_endpoint

SECRETS = {"AWS_SECRET_ACCESS_KEY": "the-very-secret-key", "AWS_SESSION_TOKEN": "the-very-secret-token"}

#: main.py with shorter timeouts.
IMPATIENT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from common import s3
from loaders.transport import shard_cache
s3.PATIENCE = shard_cache.STALLED = 4.0
s3.READ_TIMEOUT = 10.0  # longer than a busy machine needs for the other shards
from main import cli
if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def mds(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs' images as shards: about ten for training, four for evaluation."""
    root = tmp_path_factory.mktemp("mds")
    make_mds(image_folder / "train", root / "train", size_limit=8_000)
    make_mds(image_folder / "val", root / "val", size_limit=8_000, compression="zstd:3")
    return root


def words(folder: Path, image_folder: Path, *more: str) -> list[object]:
    """Return a run's command line: all data from S3, one cache, all logging enabled."""
    names = ("train_dataset", "eval_dataset")
    return [
        small_yaml(folder, image_folder, loggers={"tensorboard": {"log_dir": str(folder / "board")}}),
        *(f"{name}.{word}" for name in names for word in ("is_streaming=true", "path=s3://images/set")),
        *(f"{name}.local={folder / 'cache'}" for name in names),
        "python_log_level=debug",
        *more,
    ]


def living(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working folder is `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found


def assert_no_secret(folder: Path, done: subprocess.CompletedProcess) -> None:
    """Check that neither the output nor the files of a run hold a credential or a signed address."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "config.yaml" for path in files) and any("events" in path.name for path in files)
    assert "DEBUG" in done.stderr + done.stdout
    everything = b"".join([done.stdout.encode(), done.stderr.encode(), *(path.read_bytes() for path in files)])
    for secret in (*SECRETS.values(), "X-Amz-Signature", "Authorization"):
        assert secret.encode() not in everything, secret


def test_killed_in_mid_epoch_and_started_again(
    s3_server: str, mds: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program reads from the same cache folder meanwhile; the next run loses nothing despite faults."""
    upload(mds, "images", "set")
    cache = tmp_path / "cache"
    with FaultProxy(s3_server, [Rule("slow", "train/shard.00007", pause=5.0)]) as proxy:
        use_endpoint(monkeypatch, proxy.address)
        first = start_main(*words(tmp_path, image_folder), cwd=tmp_path)
        try:
            wait_for(lambda: list(cache.glob("train/shard.00007.*part")), process=first)
            wait_for(lambda: len(list(cache.glob("train/shard.*.mds"))) > 3, process=first)
            other = build_imagenet_dataspec("s3://images/set", True, 4, local=cache).dataloader.dataset
            assert other.read(0)
            assert first.poll() is None
            first.kill()
            assert list(cache.glob("train/shard.00007.*part")), "a killed run cannot clean up"
            wait_for(lambda: not living(tmp_path))  # its workers exit too
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGKILL)
            first.communicate()
        proxy.rules = [Rule(503, "index.json", times=2), Rule("drop", "val/shard", times=2), Rule("cut", times=2)]
        again = run_main(*words(tmp_path, image_folder, "run_name=again"), cwd=tmp_path, **SECRETS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert all(rule.times == 0 for rule in proxy.rules), "not every fault occurred"
    assert len(metrics(tmp_path / "runs/again")) == 2
    assert {path.name for path in cache.glob("train/*")} == {path.name for path in (mds / "train").iterdir()}
    assert not list(cache.rglob("*.part"))
    assert_no_secret(tmp_path, again)


def test_two_ranks_and_a_store_that_stops_answering(
    s3_server: str, mds: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-epoch: every rank exits, names the object and leaves no partial file."""
    upload(mds, "images", "set")
    program = tmp_path / "short_timeouts.py"
    program.write_text(IMPATIENT)
    with FaultProxy(s3_server, [Rule("hang", "val/shard.00002")]) as proxy:
        use_endpoint(monkeypatch, proxy.address)
        command = words(tmp_path, image_folder, "train_dataset.num_workers=2", "run_name=stuck")
        done = run_main(*command, cwd=tmp_path, launcher=(COMPOSER, "-n", "2", str(program)), **SECRETS)
        assert proxy.failed
    assert done.returncode not in (0, None)
    said = done.stdout + done.stderr
    assert "s3://images/set/val/shard.00002.mds.zstd: http://127.0.0.1" in said and "does not answer" in said
    wait_for(lambda: not living(tmp_path))
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert_no_secret(tmp_path, done)
