"""Worker processes: signals, exits, and faults reported as sentences. Also the digits data set."""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Workers

from common.errors import ConfigError, DataError, sentence_of
from data import build_imagenet_dataspec
from loaders.errors import LocalMissing
from loaders.images.transforms import NormalizationFn
from loaders.storage.digits import make_digits
from loaders.workers import default_num_workers
from tests.runs import ROOT, wait_for

pytestmark = pytest.mark.slow


def loader(folder: Path, **options):
    return build_imagenet_dataspec(folder, False, 4, crop_size=16, **options).dataloader


def alive(pid: int) -> bool:
    return any(child.pid == pid and child.is_alive() for child in multiprocessing.active_children())


def pending(pid: int) -> bool:
    """Return whether a process has yet to receive a SIGTERM."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)) >> (signal.SIGTERM - 1) & 1)


def test_workers_are_forks_of_the_trainer(folder: Path) -> None:
    """Even where another way of starting processes is the default, as in Python 3.14."""
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        train = loader(folder, num_workers=1)
        next(iter(train))
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert psutil.Process(train._iterator._workers[0].pid).ppid() == os.getpid()
    assert train._iterator.slots, "batches must travel in reusable memory"


def test_signals(folder: Path) -> None:
    train = loader(folder, num_workers=1)
    batches = iter(train)
    next(batches)
    pid = train._iterator._workers[0].pid
    # Sent by another process, as by SLURM; an interrupt and a first SIGTERM change nothing.
    elsewhere = [sys.executable, "-c", "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))", str(pid)]
    for number in (signal.SIGINT, signal.SIGTERM):
        subprocess.run([*elsewhere, str(int(number))], check=True)
    wait_for(lambda: not pending(pid))  # otherwise the second SIGTERM would merge with the first
    assert len(list(batches)) == 14 and alive(pid)
    worker = train._iterator._workers[0]
    with contextlib.suppress(RuntimeError):  # torch may notice that the worker is gone
        subprocess.run([*elsewhere, str(int(signal.SIGTERM))], check=True)
        worker.join(60)
    worker.join(60)
    assert worker.exitcode == 128 + signal.SIGTERM


def test_no_folder_for_temporary_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's error is raised, instead of a batch that never arrives."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setitem(multiprocessing.process.current_process()._config, "tempdir", None)
    with pytest.raises(OSError, match="gone"):
        next(iter(loader(folder, num_workers=1)))


@pytest.mark.parametrize("locked", [False, True])
def test_a_stopped_worker_is_killed_with_its_loader(locked: bool, folder: Path) -> None:
    """Even if it holds the lock of the event that ends all workers, for which stock torch waits forever."""
    train = loader(folder, num_workers=2)
    next(iter(train))
    stopped = train._iterator._workers[1]
    os.kill(stopped.pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
    if locked:
        train._iterator._workers_done_event._cond.acquire(timeout=60)
    del train
    gc.collect()
    assert not alive(stopped.pid) and stopped.exitcode == -signal.SIGKILL


ENDS = [
    (signal.SIGKILL, "most likely the machine ran out of memory"),
    (signal.SIGBUS, "most likely shared memory is full"),
    (signal.SIGSEGV, "a library or the decoder crashed"),
]


@pytest.mark.parametrize(("number", "reason"), ENDS)
def test_worker_that_was_killed(number: signal.Signals, reason: str, folder: Path) -> None:
    """A sentence with the likeliest reason."""
    train = loader(folder, num_workers=1)
    batches = iter(train)
    next(batches)
    worker = train._iterator._workers[0]
    with pytest.raises(RuntimeError) as caught:
        os.kill(worker.pid, number)
        list(batches)
        worker.join(60)
    said = f"worker process {worker.pid} was killed by a signal ({signal.strsignal(number)}): {reason}"
    assert sentence_of(caught.value).startswith(said)


def test_the_trainer_may_terminate_a_worker(folder: Path) -> None:
    train = loader(folder, num_workers=1)
    next(iter(train))
    worker = train._iterator._workers[0]
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


NOTE_ENDS = """
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Workers
stock = Workers._shutdown_workers

def noted(self):
    print("left:", sum(worker.is_alive() for worker in self._workers))
    stock(self)

Workers._shutdown_workers = noted
"""
"""Prints the number of workers left to torch's own cleanup, which waits five seconds for each."""


def test_deleted_loaders_stop_their_workers_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Workers, "_shutdown_workers", Workers._shutdown_workers)
    exec(NOTE_ENDS, {})
    spec = build_imagenet_dataspec(folder, False, 4, crop_size=16, num_workers=2)
    next(iter(spec.dataloader))
    pids = [worker.pid for worker in spec.dataloader._iterator._workers]
    spec.itself = spec  # a reference cycle, as in a Trainer
    gc.collect()
    capsys.readouterr()
    del spec
    gc.collect()
    assert not any(map(alive, pids)) and set(capsys.readouterr().out.splitlines()) == {"left: 0"}


def test_an_iterator_keeps_its_loader_alive(folder: Path) -> None:
    batches = iter(loader(folder, num_workers=2))
    gc.collect()
    assert len(list(batches)) == 15


def test_program_ends_promptly(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"{NOTE_ENDS}\nfrom data import build_imagenet_dataspec\n"
        f"spec = build_imagenet_dataspec({str(folder)!r}, False, 4, crop_size=16, num_workers=2)\n"
        "next(iter(spec.dataloader))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert set(done.stdout.splitlines()) == {"left: 0"}


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named(workers: int, tmp_path: Path) -> None:
    from tests.image_files import make_imagefolder

    root = make_imagefolder(tmp_path)
    path = root / "train/dog/0002.jpeg"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        list(loader(root, num_workers=workers))
    sentence = sentence_of(caught.value)
    assert sentence is not None and sentence.startswith(f"{path}: cannot be read as an image")
    assert "Traceback" not in sentence


def test_sentence_of() -> None:
    assert sentence_of(ValueError("ours")) is None
    assert sentence_of(DataError("a\nb")) == "a\nb"
    assert sentence_of(ConfigError("one", "two")) == "one\ntwo"
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = LocalMissing("inner")
    assert sentence_of(wrapped) == "inner"
    assert str(pickle.loads(pickle.dumps(LocalMissing("x")))) == "x"


def test_default_num_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: range(64))
    assert default_num_workers() == 8
    for ranks, workers in (("8", 8), ("16", 4), ("64", 1), ("100", 1), ("", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert default_num_workers() == workers


def test_normalization_can_be_pickled() -> None:
    normalise = NormalizationFn()
    batch = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8), torch.zeros(2)
    first = normalise(batch)[0]
    assert torch.equal(pickle.loads(pickle.dumps(normalise))(batch)[0], first)
    assert first[0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229)


def test_digits(tmp_path: Path) -> None:
    """Four concurrent processes write one complete folder, and a second call keeps it."""
    target = tmp_path / "data/digits"
    program = "import sys, pathlib; from loaders.storage.digits import make_digits as d; d(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(target)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert [path.name for path in target.parent.iterdir()] == ["digits"], "a partial folder was left"
    counts = {split: len(list((target / split).rglob("*.png"))) for split in ("train", "val")}
    assert counts == {"train": 1438, "val": 359}
    before = (target / "val/9").stat().st_mtime_ns
    assert make_digits(target) == target and (target / "val/9").stat().st_mtime_ns == before
    dataset = loader(target, num_workers=0).dataset
    assert dataset.classes == [str(digit) for digit in range(10)]
    assert len(dataset) == 1438
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(DataError, match="holds something other than the digits"):
        make_digits(tmp_path / "other")
