"""A cache folder that processes share: each shard is fetched once, and evicted only when no process reads it."""

from __future__ import annotations

import errno
import fcntl
import gc
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from common.errors import DataError
from common.sizes import bytes_of
from loaders.transport import shard_cache
from tests.loaders.proxy import FaultProxy
from tests.loaders.test_streaming import build, everything
from tests.s3 import upload, use_endpoint

SHARD = 17_000  # bytes, slightly more than any of the fixtures' shards


def shards_in(cache: Path) -> list[str]:
    """Return the names of the cached shards."""
    return sorted(path.name for path in cache.glob("val/shard.*"))


def bytes_in(cache: Path) -> int:
    """Return the size of the cached shards in bytes."""
    return sum(path.stat().st_size for path in cache.glob("val/shard.*"))


def test_processes_fetch_each_shard_once(s3_server: str, compressed: Path, tmp_path: Path, monkeypatch) -> None:
    remote = upload(compressed, "images", "set")
    with FaultProxy(s3_server, []) as proxy:
        use_endpoint(monkeypatch, proxy.address)

        def read() -> None:
            dataset = build(remote, tmp_path / "cache").dataloader.dataset
            for index in range(len(dataset)):
                dataset.read(index)

        processes = [multiprocessing.get_context("fork").Process(target=read) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        names = [path.name for path in (compressed / "val").glob("shard.*")]
        assert [proxy.count(name) for name in names] == [1] * len(names)
    assert len(shards_in(tmp_path / "cache")) == len(names)
    assert not list(tmp_path.rglob("*.part"))


def test_a_stalled_process_is_not_waited_for(shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shard_cache, "STALLED", 0.05)
    dataset = build(shards, tmp_path).dataloader.dataset
    descriptor = shard_cache._locked(tmp_path / "val/shard.00000.mds.lock.part")
    assert dataset.read(0)
    os.close(descriptor)
    build(shards, tmp_path)
    assert not list(tmp_path.rglob("*.part")), "a lock without an owner was left"


def test_a_running_download_is_not_touched(shards: Path, tmp_path: Path) -> None:
    dataset = build(shards, tmp_path).dataloader.dataset
    with dataset.cache._alone(dataset.cache.path_of(0)) as part:
        part.touch()
        build(shards, tmp_path)
        gc.collect()
        assert part.exists()
        dataset.cache.fetch(0, wait=False)
        assert shards_in(tmp_path) == ["shard.00000.mds.lock.part", part.name]


def test_a_complete_cache_is_not_written_to(s3_server: str, shards: Path, tmp_path: Path) -> None:
    """The cache may be read-only."""
    remote = upload(shards, "images", "set")
    assert len(everything(build(remote, tmp_path))[1]) == 60

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}

    before = state()
    assert len(everything(build(remote, tmp_path))[1]) == 60
    assert state() == before


def test_a_read_only_cache_folder(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(shards, tmp_path).dataloader.dataset

    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shard_cache, "_locked", read_only)
    with pytest.raises(DataError, match=r"shard\.00000\.mds: cannot be copied to .*val \(Read-only file system\)"):
        dataset.read(0)


def test_a_folder_without_locks(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS may be: shards are fetched, but cannot be evicted."""

    def lockless(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", lockless)
    with pytest.raises(DataError, match=r"has no file locks.* Set local=/some/folder .*, or cache_limit=null"):
        build(shards, tmp_path, cache_limit="1gb")
    assert len(everything(build(shards, tmp_path))[1]) == 60
    assert shards_in(tmp_path) == shards_in(shards)


def test_a_deleted_data_set_leaves_no_descriptors(shards: Path, tmp_path: Path) -> None:
    def opened() -> int:
        assert build(shards, tmp_path).dataloader.dataset[0]
        gc.collect()  # loaders are reference cycles
        return len(list(Path("/proc/self/fd").iterdir()))

    first = opened()
    assert [opened() for _ in range(2)] == [first] * 2


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "compressed"])
def test_the_limit_is_kept(kind: str, workers: int, limit: int, tmp_path: Path, request) -> None:
    """At any limit, each epoch has every image; each further process may exceed it by its open shard."""
    source = request.getfixturevalue(kind)
    reference = everything(build(source, tmp_path / "all"))
    spec = build(source, tmp_path / "cache", workers, cache_limit=limit * SHARD)
    for _ in range(2):
        images, labels = everything(spec)
        assert torch.equal(images, reference[0]) and torch.equal(labels, reference[1])
        assert bytes_in(tmp_path / "cache") <= (limit + max(0, workers - 1)) * SHARD
    for thread in threading.enumerate():
        if thread.name.startswith("prefetch"):
            thread.join()  # which may still look at a shard, and lock it for that
    if limit == 100:
        assert shards_in(tmp_path / "cache") == shards_in(tmp_path / "all")
    assert not list(tmp_path.rglob("*.part"))


def test_the_least_recently_used_closed_shard_is_evicted(shards: Path, tmp_path: Path) -> None:
    names = shards_in(shards)
    cache = build(shards, tmp_path, cache_limit=3 * SHARD).dataloader.dataset.cache
    held = [cache.open(shard) for shard in (0, 1, 2)]
    os.close(held[1])
    os.close(cache.open(2))
    cache.fetch(3)
    assert shards_in(tmp_path) == [names[0], names[2], names[3]], "0 is older but open, and 1 is older than 2"
    os.close(held[2])
    os.close(cache.open(2))
    os.close(cache.open(3))
    os.close(cache.open(2))
    os.close(held[0])
    cache.fetch(1)
    cache.fetch(0)
    assert shards_in(tmp_path) == [names[0], names[1], names[2]]


def test_each_split_has_its_own_limit(shards: Path, tmp_path: Path) -> None:
    assert len(everything(build(shards, tmp_path, is_train=True, drop_last=False))[1]) == 60
    everything(build(shards, tmp_path, cache_limit=SHARD))
    assert len(shards_in(tmp_path)) == 1
    assert len(list((tmp_path / "train").iterdir())) == len(list((shards / "train").iterdir()))


def test_shards_read_in_place_are_not_evicted(compressed: Path, tmp_path: Path) -> None:
    source = shutil.copytree(compressed, tmp_path / "set")
    everything(build(source, source, cache_limit=1))
    there = {path.name for path in (source / "val").iterdir()}
    assert there > {path.name for path in (compressed / "val").iterdir()}, "the raw shards must be written there"


@pytest.mark.parametrize(
    ("size", "number"),
    [(5, 5), ("5", 5), ("1b", 1), ("200gb", 200 << 30), ("1.5 TB", 3 << 39), ("2KB", 2048), (" 3mb ", 3 << 20)],
)
def test_sizes(size: int | str, number: int) -> None:
    assert bytes_of(size) == number


@pytest.mark.parametrize(
    "size", [0, -1, "", "gb", "1.gb", "0.5b", "1e9", "5 images", "1_000", "9" * 500, "٣gb", "true"]
)
def test_invalid_sizes(size: int | str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes; write a number and a unit, as in 200gb"):
        bytes_of(size)
