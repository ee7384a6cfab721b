"""Conversion: nothing lost, nothing changed unasked, nothing done twice, and a sentence for each fault."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from loaders.beton import BetonDataset
from loaders.decoding import decode, open_picture
from loaders.imagefolder import ImageFolderDataset
from loaders.streaming import StreamingDataset
from loaders.transforms import EvaluationPipeline
from tests.pictures import make_imagefolder, make_mds
from tests.s3 import use_endpoint
from tools.convert import main

PIPELINE = EvaluationPipeline(resize_size=-1, crop_size=32)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small JPEGs of three classes, and in val/dog two photographs and one picture of each odd kind."""
    root = make_imagefolder(tmp_path_factory.mktemp("source"), per_class=8, size=40)
    photo, other = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    odd = root / "val" / "dog"
    photo.save(odd / "photo.JPEG", quality=92)
    other.convert("L").save(odd / "grey.jpeg")
    small = photo.crop((100, 100, 220, 200))
    small.convert("CMYK").save(odd / "cmyk.jpg")
    small.convert("P").save(odd / "palette.png", transparency=3)
    small.convert("RGBA").save(odd / "alpha.png")
    Image.fromarray(np.arange(90 * 70, dtype=np.uint16).reshape(90, 70) * 10).save(odd / "deep.png")
    return root


def convert(*words: object, workers: int = 2) -> int:
    """Run the program in this process."""
    return main([*map(str, words), "--workers", str(workers)])


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pictures_of(root: Path | str, split: str, local: Path | str | None = None) -> list[tuple[bytes, int]]:
    """What our reader finds in shards, in their order."""
    dataset = StreamingDataset(str(root), str(local or root), split, PIPELINE, seed=0, batch_size=1)
    assert dataset.classes == ["cat", "dog", "person"]
    return [dataset.read(index) for index in range(len(dataset))]  # type: ignore[misc]


def originals_of(root: Path, split: str) -> list[tuple[bytes, int]]:
    dataset = ImageFolderDataset(root, split, PIPELINE, seed=0)
    return [dataset.read(index) for index in range(len(dataset))]


# The stock reader leaves the files open that it decompresses.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_readers_find_every_byte(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from streaming import StreamingDataset as StockDataset

    assert convert(source, tmp_path / "mds", "--shard-mb", 0.01, "--compression", "zstd", "--hash", "xxh64") == 0
    assert "train" in capfd.readouterr().out
    shutil.copytree(tmp_path / "mds", tmp_path / "copy")
    for split in ("train", "val"):
        originals = originals_of(source, split)
        found = pictures_of(tmp_path / "mds", split)
        assert sorted(found) == sorted(originals)
        assert (found == originals) == (split == "val"), "val in order, train shuffled"
        stock = StockDataset(local=str(tmp_path / "copy"), split=split, batch_size=1)
        for index, (picture, label) in enumerate(found):
            sample = stock[index]
            assert sample["y"] == label and originals[sample["i"]] == (picture, label)
            assert sample["x"].convert("RGB").tobytes() == Image.open(io.BytesIO(picture)).convert("RGB").tobytes()
    assert json.loads((tmp_path / "mds" / "classes.json").read_text()) == ["cat", "dog", "person"]
    index = json.loads((tmp_path / "mds" / "train" / "index.json").read_text())
    assert len(index["shards"]) > 2 and list(index["shards"][0]["zip_data"]["hashes"]) == ["xxh64"]
    assert {label for _, label in pictures_of(tmp_path / "mds", "train")[:8]} == {0, 1, 2}
    assert not (tmp_path / "mds" / ".convert").exists() and not (tmp_path / "mds" / "skipped.txt").exists()


def test_shards_are_those_of_the_published_writer(tmp_path: Path) -> None:
    root = make_imagefolder(tmp_path / "folder", per_class=3)
    shutil.rmtree(root / "train")
    make_mds(root / "val", tmp_path / "stock" / "val", hashes=["sha1"], compression="zstd")
    assert convert(root, tmp_path / "ours", "--compression", "zstd", workers=1) == 0
    (tmp_path / "ours" / "classes.json").unlink()
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock")


def test_two_runs_give_identical_bytes_and_only_large_pictures_change(source: Path, tmp_path: Path) -> None:
    words = ["--max-size", 64, "--quality", 80, "--shard-mb", 0.02]
    for workers in (1, 2):
        assert convert(source, tmp_path / str(workers), *words, workers=workers) == 0
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    changed = 0
    for (picture, label), (original, right) in zip(
        pictures_of(tmp_path / "1", "val"), originals_of(source, "val"), strict=True
    ):
        assert label == right
        before = open_picture(original)
        if max(before.size) <= 64:
            assert picture == original
            continue
        changed += 1
        after = open_picture(picture)
        assert picture.startswith(b"\xff\xd8") and max(after.size) == 64
        assert after.size == tuple(round(side * 64 / max(before.size)) for side in before.size)
        expected = io.BytesIO()
        before.resize(after.size, Image.Resampling.LANCZOS).save(expected, "JPEG", quality=80)
        assert picture == expected.getvalue()
    assert changed == 6


@contextmanager
def fed(pipe: Path, data: bytes) -> Iterator[None]:
    """Whoever reads the named pipe gets `data`; before and after, reading it waits for ever."""
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            with pipe.open("wb") as out:
                if not over.is_set():
                    out.write(data)
            while _is_read(pipe):  # or it would get the picture twice
                time.sleep(0.01)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb"):
            thread.join()


def _is_read(pipe: Path) -> bool:
    """Whether a process has the named pipe open for reading."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@pytest.fixture
def stalling(source: Path, tmp_path: Path) -> Path:
    """A data set of which one picture is a named pipe: a worker that comes to it waits."""
    root = tmp_path / "stalling"
    shutil.copytree(source, root)
    path = sorted((root / "train" / "dog").iterdir())[3]
    path.unlink()
    os.mkfifo(path)
    return root


@contextmanager
def stalled(words: list[str], destination: Path) -> Iterator[BaseProcess]:
    """The program as a process of its own, as far as it gets: all shards of train/ but the one with the pipe."""
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(words)))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while len(list((destination / ".convert" / "train").glob("*.json"))) < 3:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
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
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{number}/cmdline").exists() and _alive(number) for number in processes):
        assert time.monotonic() < deadline, "workers outlive the program"
        time.sleep(0.05)


def _alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_interrupted_and_killed_and_damaged(stalling: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = next(path for path in stalling.rglob("*") if path.is_fifo())
    picture = (stalling / "train" / "dog" / "0000.jpeg").read_bytes()
    out = tmp_path / "out"
    words = [str(stalling), str(out), "--shard-mb", "0.008", "--workers", "2"]

    with stalled(words, out) as process:
        workers = workers_of(process.pid or 0)
        assert len(workers) == 2
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(30)
        assert process.exitcode == 130
        wait_until_gone(workers)
    assert "the same command goes on" in capfd.readouterr().err
    finished = {path: path.stat() for path in (out / "train").glob("shard.*")}
    assert len(finished) >= 3

    with stalled(words, out) as process:
        workers = workers_of(process.pid or 0)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(30)
        wait_until_gone(workers)
    assert not list(out.rglob("index.json"))

    capfd.readouterr()
    assert main([*words, "--quality", "80"]) == 1
    error = capfd.readouterr().err
    assert "unfinished conversion with other options (quality 90)" in error and f"rm -r {out}/.convert" in error

    notes = {path.stem for path in (out / ".convert" / "train").glob("*.json")}
    noted = sorted(path for path in finished if path.name.split(".")[1] in notes)
    damaged = noted[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with fed(pipe, picture):
        capfd.readouterr()
        assert main(words) == 1
        assert f"{damaged}: is damaged (its sha1 is not the recorded one)" in capfd.readouterr().err
        assert not list(out.rglob("index.json"))
        assert main(words) == 0
        assert "Going on" in capfd.readouterr().out
        for path in noted[1:]:
            now = path.stat()
            assert (now.st_ino, now.st_mtime_ns) == (finished[path].st_ino, finished[path].st_mtime_ns)
        assert convert(stalling, tmp_path / "at once", "--shard-mb", 0.008) == 0
    assert files_of(out) == files_of(tmp_path / "at once")


def test_to_s3_and_on_after_a_stop_and_back(
    source: Path, s3_server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    client.put_bucket_versioning(Bucket="pictures", VersioningConfiguration={"Status": "Enabled"})
    root = shutil.copytree(source, tmp_path / "root")
    (root / "val" / "person" / "zzz.jpeg").write_bytes(b"\xff\xd8\xff no picture")
    remote = "s3://pictures/a/set"
    assert convert(root, remote, "--shard-mb", 0.02, workers=1) == 1
    assert "zzz.jpeg: cannot be read as a picture" in capfd.readouterr().err
    keys = {item["Key"] for item in client.list_objects_v2(Bucket="pictures")["Contents"]}
    assert "a/set/.convert/val/00000.json" in keys and not any(key.endswith("index.json") for key in keys)

    assert convert(root, remote, "--shard-mb", 0.02, "--skip-unreadable", workers=1) == 0
    versions = [item["Key"] for item in client.list_object_versions(Bucket="pictures")["Versions"]]
    shards = [key for key in versions if "/shard." in key]
    assert len(shards) == len(set(shards)) > 5, "a finished shard was uploaded twice"
    left = {item["Key"].removeprefix("a/set/") for item in client.list_objects_v2(Bucket="pictures")["Contents"]}
    assert {"train/index.json", "val/index.json", "classes.json", "skipped.txt"} < left
    assert not any(".convert" in key for key in left)
    assert pictures_of(remote, "val", tmp_path / "cache") == originals_of(source, "val")

    assert convert(remote, tmp_path / "back", "--local", tmp_path / "other", "--shard-mb", 0.05) == 0
    assert convert(source, tmp_path / "direct", "--shard-mb", 0.05) == 0
    for split in ("train", "val"):
        assert pictures_of(tmp_path / "back", split) == pictures_of(tmp_path / "direct", split)


def test_shards_from_compressed_shards_leave_them_alone(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "mds", "--shard-mb", 0.02, "--compression", "zstd") == 0
    before = files_of(tmp_path / "mds")
    assert convert(tmp_path / "mds", tmp_path / "again", "--max-size", 60) == 0
    assert files_of(tmp_path / "mds") == before
    sizes = [max(open_picture(picture).size) for picture, _ in pictures_of(tmp_path / "again", "val")]
    assert max(sizes) == 60 and len(sizes) == 30


def test_unreadable_pictures_are_named(source: Path, tmp_path: Path) -> None:
    root = shutil.copytree(source, tmp_path / "root")
    bad = [root / "train" / "cat" / "0002.jpeg", root / "train" / "dog" / "0005.jpeg", root / "val" / "cat" / "x.png"]
    for path in bad[:2]:
        path.write_bytes(path.read_bytes()[:-300])
    bad[2].write_bytes(b"")
    command = [sys.executable, "-m", "tools.convert", str(root), str(tmp_path / "out"), "--workers", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert all(str(path) in run.stderr for path in bad[:2]) and "--skip-unreadable" in run.stderr
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert convert(root, out, "--shard-mb", 0.01, "--skip-unreadable", workers=workers) == 0
        lines = (out / "skipped.txt").read_text().splitlines()
        assert {line.split(":")[0] for line in lines} == set(map(str, bad)) and len(lines) == 3
        assert [len(pictures_of(out, split)) for split in ("train", "val")] == [22, 30]
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_to_ffcv(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ffcv"
    assert convert(source, out, "--to", "ffcv", "--max-size", 100) == 0
    assert convert(source, tmp_path / "mds", "--max-size", 100) == 0
    assert sorted(path.name for path in out.iterdir()) == ["classes.json", "train.beton", "val.beton"]
    for split in ("train", "val"):
        dataset = BetonDataset(out, split, PIPELINE, seed=0)
        assert dataset.classes == ["cat", "dog", "person"]
        for index, (picture, label) in enumerate(pictures_of(tmp_path / "mds", split)):
            found, there = dataset.read(index)
            assert there == label and decode(found).equal(decode(picture))
    capfd.readouterr()
    assert convert(source, out, "--to", "ffcv") == 1
    assert "train.beton: is there already" in capfd.readouterr().err


def test_what_cannot_be_is_refused_in_a_sentence(
    source: Path, tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object, status: int = 1) -> str:
        assert convert(*words) == status
        return capfd.readouterr().err

    out = tmp_path / "out"
    assert "no such folder" in refused(tmp_path / "imagnet", out)
    assert "--compression zst: no such kind" in refused(source, out, "--compression", "zst", status=2)
    assert "--hash crc: no such kind" in refused(source, out, "--hash", "crc", "--quality", 0, status=2)
    assert "--local" in refused("s3://pictures/set", out)
    assert "nowhere else" in refused(source, "gs://bucket/set")
    assert "has no bucket 'nowhere'" in refused(source, "s3://nowhere/set")
    assert "disks only" in refused(source, "s3://nowhere/set", "--to", "ffcv")
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in refused(source, tmp_path / "file" / "out")
    assert not out.exists()

    assert convert(source, out) == 0
    assert "train: is there already: 24 pictures in 1 shards" in refused(source, out)
    (out / "train" / "index.json").unlink()
    assert "train: is not empty (shard.00000.mds)" in refused(source, out)
    shutil.rmtree(out / "train")
    shutil.rmtree(out / "val")
    (out / "classes.json").write_text('["bird", "cat", "dog"]')
    assert "lists other classes" in refused(source, out)

    root = shutil.copytree(source, tmp_path / "root")
    with (root / "train" / "cat" / "0000.jpeg").open("ab") as file:
        file.truncate(shutil.disk_usage(tmp_path).free + (1 << 30))
    assert "are free. Free some space" in refused(root, tmp_path / "large")
    assert not (tmp_path / "large").exists()
    shutil.rmtree(root / "val" / "cat")
    assert "1 classes are in train/ but not in val/ (cat)" in refused(root, tmp_path / "other")

    use_endpoint(monkeypatch, s3_server)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in refused(source, "s3://pictures/set")
