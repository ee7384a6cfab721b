"""What a store of shards holds of this machine, and what is left of it when it is gone."""

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import DataError
from loaders.storage import leftovers
from loaders.storage.shards import VerifiedStream
from tests.loaders.test_streaming import build, everything
from tests.runs import ROOT, segments


def test_a_data_set_that_is_gone_leaves_no_descriptors(shards: Path) -> None:
    """Stock mosaicml-streaming keeps twelve until the process ends."""

    def opened() -> int:
        spec = build(shards, shards)
        spec.dataloader.dataset[0]
        blocks = list(leftovers.SHARED.glob(f"{spec.dataloader.dataset.store._shm_prefix_int:06}_*"))
        inodes.update(block.stat().st_ino for block in blocks)
        del spec
        gc.collect()  # loaders refer to themselves
        return len(list(Path("/proc/self/fd").iterdir()))

    inodes: set[int] = set()
    first = opened()
    assert [opened() for _ in range(3)] == [first] * 3
    left = {entry.inode() for entry in os.scandir(leftovers.SHARED)}
    assert len(inodes) >= 12 and not inodes & left, "names that nobody uses"


def test_a_data_set_that_was_not_opened_leaves_no_descriptors(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a number that stands for a run."""

    def fails(*_arguments: object) -> None:
        raise DataError("its cache cannot be written")

    build(shards, shards, is_train=True)  # what is opened once for the whole process
    monkeypatch.setattr(VerifiedStream, "set_up_local", fails)
    counts = []
    for _ in range(3):
        with pytest.raises(DataError, match="its cache cannot be written"):
            build(shards, tmp_path)
        gc.collect()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts == counts[:1] * 3
    assert not segments(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True], ids=["in place", "through a cache"])
def test_two_runs_of_the_same_shards(cached: bool, shards: Path, tmp_path: Path, monkeypatch) -> None:
    """Both may read them where they are; a cache is one run's."""
    monkeypatch.setattr(leftovers, "GRACE", 0.2)
    local = tmp_path if cached else shards
    other = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from data import build_imagenet_dataspec
spec = build_imagenet_dataspec({str(shards)!r}, True, 10, local={str(local)!r}, is_train=False, num_workers=0)
print(spec.dataloader.dataset[0][1], flush=True)
input()
"""
    command = [sys.executable, "-c", other]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline().strip().isdigit()
            if cached:
                with pytest.raises(DataError, match="another run on this machine uses this cache folder"):
                    build(shards, local)
            else:
                assert len(everything(build(shards, local))[0]) == 60
        finally:
            process.kill()
    assert len(everything(build(shards, local))[0]) == 60


def test_a_number_that_was_given_back_is_nobodys() -> None:
    """Though some process, such as a fork that knows nothing of it, still has its memory."""
    block, ours = leftovers.SHARED / f"{os.getpid()}_locals", str(os.getpid())
    block.write_bytes(bytes(4096))
    with block.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert ours in leftovers._mapped(ours)
        block.unlink()
        assert ours not in leftovers._mapped(ours)
