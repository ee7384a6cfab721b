"""Shards on disk and in S3: the images of the folder, and an error where stock Streaming ends early or hangs."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from composer.core import DataSpec
from PIL import Image

from common.errors import DataError, sentence_of
from data import build_imagenet_dataspec
from loaders.storage.streaming import read_classes
from loaders.transport.prefetch import AHEAD, Prefetcher
from tests.image_files import make_mds
from tests.runs import wait_for
from tests.s3 import free_port, s3_client, upload, use_endpoint


def build(remote: Path | str, local: Path | str, workers: int = 0, **options) -> DataSpec:
    options = {"batch_size": 10, "is_train": False, "shuffle": False, "crop_size": 32, **options}
    return build_imagenet_dataspec(remote, True, local=local, num_workers=workers, **options)


def everything(spec: DataSpec) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*spec.dataloader, strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture
def reference(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels from the image folder."""
    return everything(
        build_imagenet_dataspec(folder, False, 10, is_train=False, shuffle=False, crop_size=32, num_workers=0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "compressed"])
@pytest.mark.parametrize("place", ["s3", "folder", "in place"])
def test_same_images_as_the_folder(
    place: str, kind: str, workers: int, tmp_path: Path, reference, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    assert len(list((source / "val").glob("shard.*"))) >= 2
    if place == "s3":
        request.getfixturevalue("s3_server")
        remote, local = upload(source, "images", "a/set"), tmp_path
    elif place == "folder":
        remote, local = str(source), tmp_path
    else:
        remote = local = shutil.copytree(source, tmp_path / "set")
    spec = build(remote, local, workers)
    images, labels = everything(spec)
    assert torch.equal(images, reference[0]) and torch.equal(labels, reference[1])
    assert len(spec.dataloader.dataset) == 60 and spec.dataloader.dataset.classes is None
    again = build_order(spec, epochs=2)
    assert sorted(again[0]) == sorted(again[1]) == list(range(60))


def build_order(spec: DataSpec, epochs: int) -> list[list[int]]:
    spec.dataloader.sampler.shuffle = True
    orders = []
    for epoch in range(epochs):
        spec.dataloader.sampler.set_epoch(epoch)
        orders.append([index for _, index in spec.dataloader.sampler])
    return orders


def test_train_and_val_have_separate_caches(s3_server: str, shards: Path, tmp_path: Path) -> None:
    remote = upload(shards, "images", "set")
    train = build(remote, tmp_path, workers=1, is_train=True, shuffle=True)
    val = build(remote, tmp_path, workers=1)
    for _ in range(2):
        assert len(everything(train)[1]) == len(everything(val)[1]) == 60
    for split in ("train", "val"):
        assert {path.name for path in (tmp_path / split).iterdir()} == {
            path.name for path in (shards / split).iterdir()
        }


def test_class_names_from_s3(s3_server: str, shards: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    names = ["cat", "dog", "person"]
    (source / "classes.json").write_text(json.dumps(names))
    assert build(source, source).dataloader.dataset.classes == names
    assert build(upload(source, "images", "set"), tmp_path / "c").dataloader.dataset.classes == names


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_gray_cmyk_and_palette_become_rgb(workers: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, mode in enumerate(("L", "CMYK", "P", "RGBA", "LA", "RGB")):
        for split in ("train", "val"):
            place = tmp_path / "folder" / split / "one"
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).convert(mode)
            extra = {"transparency": bytes(range(256))} if mode == "P" else {}
            image.save(place / f"{number}.{'jpeg' if mode in ('L', 'CMYK', 'RGB') else 'png'}", **extra)
    options = {"batch_size": 6, "is_train": False, "shuffle": False, "crop_size": 32, "num_workers": workers}
    images, _ = next(iter(build_imagenet_dataspec(tmp_path / "folder", False, **options).dataloader))
    assert images.shape == (6, 3, 32, 32)
    for path in (tmp_path / "folder").rglob("*.png"):
        path.unlink()
    make_mds(tmp_path / "folder/val", tmp_path / "mds/val")
    mds, _ = next(iter(build(tmp_path / "mds", tmp_path / "mds", workers, batch_size=3).dataloader))
    assert torch.equal(mds, images[[0, 1, 5]])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "compressed"])
def test_missing_shard_in_mid_epoch(
    kind: str, workers: int, s3_server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    remote = upload(source, "images", "set")
    name = sorted(path.name for path in (source / "val").glob("shard.00002*"))[0]
    s3_client().delete_object(Bucket="images", Key=f"set/val/{name}")
    spec = build(remote, tmp_path, workers, batch_size=2)
    batches = 0
    with pytest.raises(DataError) as caught:
        for _ in spec.dataloader:
            batches += 1
    assert batches > 2
    sentence = sentence_of(caught.value)
    assert sentence is not None and sentence.startswith(f"{remote}/val/{name}: is missing") and "\n" not in sentence


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "compressed"])
def test_damaged_shard(kind: str, workers: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One flipped byte: the recorded hash reveals it, and the cache does not keep the shard."""
    source = shutil.copytree(request.getfixturevalue(kind), tmp_path / "set")
    shard = sorted((source / "val").glob("shard.00001*"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    spec = build(source, tmp_path / "cache", workers)
    with pytest.raises(DataError) as caught:
        list(spec.dataloader)
    assert f"{shard}: is damaged" in str(sentence_of(caught.value))
    kept = (tmp_path / "cache/val").glob("shard.00001*")
    assert not [path for path in kept if path.suffix != ".part"], "only the lock file of a prefetcher may remain"
    assert shard.exists(), "the original was deleted"


def test_half_written_cache_is_fetched_again(shards: Path, tmp_path: Path, reference) -> None:
    (tmp_path / "val").mkdir()
    name = "shard.00001.mds"
    (tmp_path / "val" / name).write_bytes((shards / "val" / name).read_bytes()[:-100])
    assert torch.equal(everything(build(shards, tmp_path))[0], reference[0])


def test_shards_in_place_are_checked_at_the_start(shards: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    shard = source / "val/shard.00001.mds"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"shard\.00001\.mds: is damaged .* bytes instead of"):
        build(source, source)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard\.00001\.mds: is missing"):
        build(source, source)


@pytest.mark.parametrize("workers", [0, 2])
def test_endpoint_dies_in_mid_epoch(
    workers: int, s3_server: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = build(upload(shards, "images", "set"), tmp_path, workers)
    use_endpoint(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(DataError) as caught:
        list(spec.dataloader)
    assert "cannot be reached" in str(sentence_of(caught.value))


def test_cache_that_cannot_be_written(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be copied to .*file"):
        build(shards, tmp_path / "file")


@pytest.mark.parametrize("cache", ["s3:/bucket/cache", "s3://bucket/cache"])
def test_a_cache_that_is_not_a_folder(cache: str, shards: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean s3://bucket/cache|in a folder of this machine"):
        build(shards, cache)


def test_cache_of_another_data_set(shards: Path, compressed: Path, tmp_path: Path) -> None:
    build(shards, tmp_path)
    with pytest.raises(DataError, match=r"caches another data set.*rm -r"):
        build(compressed, tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "malformed"), ('{"version": 2, "shards": []}', "lists no shards"), ('{"version": 2}', "malformed")],
)
def test_malformed_index(content: str, said: str, shards: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    (source / "val/index.json").write_text(content)
    with pytest.raises(DataError, match=rf"val/index\.json: .*{said}"):
        build(source, source)
    (source / "classes.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"classes\.json: is not a list of class names"):
        read_classes(str(source))
    (source / "val/index.json").unlink()
    with pytest.raises(DataError, match=r"val/index\.json: is missing"):
        build(source, source)


def test_shards_close_when_the_interpreter_exits(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = build(shards, shards).dataloader.dataset.files
    files.read(0, 0)
    (file,) = files._open._open.values()
    descriptor = file._descriptor
    with monkeypatch.context() as ending:
        ending.setattr("loaders.storage.shard_files.os", None)  # as the interpreter does at exit
        file.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    del file._descriptor


def test_prefetch_is_bounded() -> None:
    fetched: list[int] = []
    early: list[int] = []
    allowed = AHEAD

    def fetch(shard: int) -> None:
        early.extend([shard] if shard >= allowed else [])
        fetched.append(shard)

    shards = np.repeat(np.arange(100), 10)
    with Prefetcher(shards, fetch) as reached:
        wait_for(lambda: len(fetched) == AHEAD)
        allowed += 1
        reached(0)
        wait_for(lambda: len(fetched) == AHEAD + 1)
        allowed += 25
        reached(255)
        wait_for(lambda: len(fetched) == AHEAD + 26)
    wait_for(lambda: not any(thread.name.startswith("prefetch-") for thread in threading.enumerate()))
    assert sorted(fetched) == list(range(AHEAD + 26)) and not early


def test_prefetch_leaves_faults_to_the_workers() -> None:
    def fail(shard: int) -> None:
        raise DataError(f"shard {shard}")

    with Prefetcher(np.arange(50), fail):
        wait_for(lambda: not any(thread.name.startswith("prefetch-") for thread in threading.enumerate()))


def test_a_shard_truncated_during_a_run(shards: Path, tmp_path: Path) -> None:
    """The shard is memory-mapped, and reading behind its end would kill the process."""
    dataset = build(shutil.copytree(shards, tmp_path / "set"), tmp_path / "set").dataloader.dataset
    dataset.read(0)
    shard, size = tmp_path / "set/val/shard.00000.mds", int(dataset.samples[0])
    os.truncate(shard, 4096)
    with pytest.raises(DataError, match=f"shard.00000.mds, sample {size - 1}: .*it ends before byte"):
        dataset.read(size - 1)


def test_threads_read_the_right_sample(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While other threads close the least recently read shards."""
    from loaders.storage import shard_files

    dataset = build(shards, shards).dataloader.dataset
    expected = [dataset.read(index) for index in range(len(dataset))]
    monkeypatch.setattr(shard_files, "MOST_OPEN", 1)
    wrong = []

    def read_on(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, len(dataset), 3000).tolist():
            try:
                found = dataset.read(index)
            except DataError as error:
                found = error
            if found != expected[index]:
                wrong.append((index, found))

    threads = [threading.Thread(target=read_on, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
