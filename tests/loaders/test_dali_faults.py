"""DALI's loader with damaged images, when it is left, and when it is interrupted."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.images.transforms import EvaluationPipeline, Pipeline, TrainingPipeline
from loaders.storage.imagefolder import ImageFolderDataset
from tests.loaders.test_dali import dali, photographs, train_set

__all__ = ["photographs"]


def damaged(data: bytes, how: str) -> bytes:
    """Damage a JPEG."""
    if how == "cut short":
        return data[: len(data) * 9 // 10]
    if how == "no image":
        return b"\xff\xd8\xff" + bytes(100) + b"\xff\xd9"
    if how == "a marker in its midst":
        return data[: len(data) // 2] + b"\xff\xd8" + data[len(data) // 2 + 2 :]
    table = data.index(b"\xff\xc4") + 4  # impossible codes in a Huffman table; the header stays valid
    return data[: table + 1] + b"\xff" * 16 + data[table + 17 :]


@pytest.mark.parametrize("pipeline", [TrainingPipeline(-1, 32), EvaluationPipeline(64, 56)])
@pytest.mark.parametrize("how", ["cut short", "no image", "a marker in its midst", "impossible codes"])
def test_a_damaged_image_is_named(photographs: Path, tmp_path: Path, how: str, pipeline: Pipeline) -> None:
    split = "train" if pipeline.random else "val"
    folder = tmp_path / split / "flower"
    folder.mkdir(parents=True)
    for number in range(16):
        data = (photographs / "train/flower/01.jpg").read_bytes()
        (folder / f"{number:02}.jpg").write_bytes(damaged(data, how) if number == 13 else data)
    loader = dali(ImageFolderDataset(tmp_path, split, pipeline, seed=0), batch_size=4)
    with pytest.raises(DataError, match=r"flower/13\.jpg: cannot be read as an image .*Replace or delete it"):
        list(loader)


def test_a_vanished_image_is_named(photographs: Path) -> None:
    dataset = ImageFolderDataset(photographs, "val", EvaluationPipeline(-1, 16), seed=0)
    dataset.names[5] = b"gone.j"
    with pytest.raises(DataError, match=r"flower/gone\.j: cannot be read .*Was it moved or deleted"):
        list(dali(dataset))


def count_threads(at_most: int = sys.maxsize) -> int:
    """Return the number of this process's native threads, after waiting for those that are exiting."""
    deadline = time.monotonic() + 60
    while (count := len(os.listdir("/proc/self/task"))) > at_most and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def test_no_threads_are_left(photographs: Path) -> None:
    list(dali(train_set(photographs)))  # start DALI's threads of the whole process
    gc.collect()
    gc.disable()  # threads must end without the garbage collector
    try:
        before = count_threads()
        for _ in dali(train_set(photographs)):
            assert count_threads() > before
            break
        assert count_threads(at_most=before) <= before
        next(batches := iter(dali(train_set(photographs))))
        del batches
        assert count_threads(at_most=before) <= before
    finally:
        gc.enable()


def test_an_interrupt_works_while_a_read_hangs(photographs: Path) -> None:
    before = set(threading.enumerate())
    stuck, released, first = threading.Event(), threading.Event(), threading.Lock()

    class Hanging(ImageFolderDataset):
        def read(self, index: int) -> tuple[bytes, int]:
            if stuck.is_set():
                if first.acquire(blocking=False):
                    os.kill(os.getpid(), signal.SIGINT)
                released.wait()
            return super().read(index)

    batches = iter(dali(Hanging(photographs, "train", TrainingPipeline(-1, 32), 0), batch_size=4))
    next(batches)
    with pytest.raises((KeyboardInterrupt, SystemExit)):  # Composer converts the first to the second
        stuck.set()
        list(batches)
    left = set(threading.enumerate()) - before
    assert left and all(thread.daemon for thread in left), "a hanging read must not block the program's exit"
    released.set()
    for thread in left:
        thread.join(60)
        assert not thread.is_alive()
