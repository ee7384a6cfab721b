"""A failing S3: transient faults lose no image, permanent ones give one sentence in time."""

import atexit
import contextlib
import errno
import multiprocessing
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from composer.core import DataSpec

from common import s3
from common.errors import DataError, sentence_of
from data import build_imagenet_dataspec
from loaders.transport import shard_cache
from tests.image_files import make_mds
from tests.loaders.proxy import FaultProxy, Rule
from tests.runs import wait_for
from tests.s3 import s3_client, upload, use_endpoint
from tools.convert.__main__ import main as convert
from tools.verify.__main__ import run as verify

REMOTE = "s3://images/set"
DAMAGED = "shard.00002.mds"


def build(local: Path, workers: int = 0, path: Path | str = REMOTE, **options) -> DataSpec:
    options = {"batch_size": 2, "is_train": False, "shuffle": False, "crop_size": 32, **options}
    return build_imagenet_dataspec(path, True, local=local, num_workers=workers, **options)


def everything(spec: DataSpec) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*spec.dataloader, strict=True)
    return torch.cat(images), torch.cat(labels)


def sentence(run: Callable[[], object]) -> str:
    """Return the one line that a user reads when `run` fails."""
    with pytest.raises(DataError) as caught:
        run()
    said = sentence_of(caught.value)
    assert said is not None and "\n" not in said and "Traceback" not in said
    return said


def assert_whole(cache: Path, source: Path) -> None:
    """Check that the files of a cache folder are intact, except those being fetched."""
    for path in (path for path in cache.rglob("*") if path.is_file() and path.suffix != ".part"):
        assert path.read_bytes() == (source / path.relative_to(cache)).read_bytes(), path


@pytest.fixture(scope="module")
def small_shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """val/ in about 30 shards."""
    root = tmp_path_factory.mktemp("small_shards")
    make_mds(folder / "val", root / "val", size_limit=5_000)
    return root


@pytest.fixture
def stored(s3_server: str, shards: Path) -> str:
    """Address of the images in S3, 60 in each split."""
    return upload(shards, "images", "set")


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that can inject faults; every client created from now on uses it."""
    monkeypatch.setattr(s3, "_PAUSES", (0.02, 0.1))
    with FaultProxy(s3_server) as proxy:
        use_endpoint(monkeypatch, proxy.address)
        yield proxy


@pytest.fixture
def reference(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels from the image folder."""
    return everything(
        build_imagenet_dataspec(folder, False, 10, is_train=False, shuffle=False, crop_size=32, num_workers=0)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_transient_faults_lose_nothing(
    workers: int, small_shards: Path, proxy: FaultProxy, tmp_path: Path, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 % of all requests fail, with every kind of fault."""
    monkeypatch.setattr(s3, "PATIENCE", 60.0)
    monkeypatch.setattr(s3, "READ_TIMEOUT", 3.0)
    upload(small_shards, "images", "set")
    faults: list[int | str] = [500, 503, "hang", "drop", "cut"]
    proxy.rules = [Rule(fault, share=0.04, code="SlowDown") for fault in faults]
    proxy.rules.append(Rule("flip", r"shard\.0000[37]\.mds", times=1))
    spec = build(tmp_path, workers)
    for _ in range(2):
        images, labels = everything(spec)
        assert torch.equal(images, reference[0]) and torch.equal(labels, reference[1])
    assert len(proxy.failed) >= 3
    assert_whole(tmp_path, small_shards)


@pytest.mark.parametrize(
    ("fault", "workers", "said"),
    [
        ("missing", 0, "is missing"),
        ("missing", 2, "is missing"),
        ("cut", 0, "keeps failing (IncompleteReadError)"),
        ("cut", 2, "keeps failing (IncompleteReadError)"),
        ("hash", 0, "is damaged (its sha1 is not the recorded one)"),
        ("hash", 2, "is damaged (its sha1 is not the recorded one)"),
        ("short", 0, "is damaged"),
        ("flip", 2, "is damaged"),
        ("hang", 2, "does not answer"),
        (503, 0, "keeps failing (SlowDown)"),
    ],
)
def test_a_permanent_fault_names_the_shard(
    fault: int | str, workers: int, said: str, stored: str, shards: Path, proxy: FaultProxy, tmp_path: Path, monkeypatch
) -> None:
    for module, name in ((s3, "PATIENCE"), (shard_cache, "STALLED")):
        monkeypatch.setattr(module, name, 2.0)
    if fault == "hang":
        monkeypatch.setattr(s3, "READ_TIMEOUT", 8.0)  # longer than a busy machine needs for the other shards
    client = s3_client()
    if fault == "missing":
        client.delete_object(Bucket="images", Key=f"set/val/{DAMAGED}")
    elif fault == "hash":
        data = bytearray((shards / "val" / DAMAGED).read_bytes())
        data[len(data) // 2] ^= 1
        client.put_object(Bucket="images", Key=f"set/val/{DAMAGED}", Body=bytes(data))
    else:
        proxy.rules = [Rule(fault, DAMAGED, code="SlowDown")]
    spec, batches = build(tmp_path, workers), []
    message = sentence(lambda: batches.extend(spec.dataloader))
    assert message.startswith(f"{REMOTE}/val/{DAMAGED}: ") and said in message
    assert len(batches) > 2, "earlier batches must be delivered"
    wait_for(lambda: not list(tmp_path.rglob("*.part")))
    assert not (tmp_path / "val" / DAMAGED).exists()
    assert_whole(tmp_path, shards)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_local_shard_lost_in_mid_epoch(workers: int, shards: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    spec = build(source, workers, source)
    (source / "val" / DAMAGED).unlink()
    assert f"{DAMAGED}: is missing" in sentence(lambda: list(spec.dataloader))


@pytest.mark.slow
def test_credentials_for_shards_need_not_allow_a_listing(stored: str, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.rules = [Rule(403, match="list-type", code="AccessDenied")]
    assert verify([REMOTE, str(tmp_path / "cache"), "--workers", "1"]) == 0
    assert convert([REMOTE, str(tmp_path / "mds"), "--local", str(tmp_path / "cache"), "--workers", "1"]) == 0


def test_no_index(stored: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"PATIENCE": 2.0, "READ_TIMEOUT": 5.0, "ANSWER_TIMEOUT": 5.0}.items():
        monkeypatch.setattr(s3, name, seconds)
    for rule, said in (
        (Rule(404, code="NoSuchKey"), "is missing"),
        (Rule("short"), "is "),  # malformed or damaged, whichever is found first
        (Rule("hang"), f"{proxy.address} does not answer"),
        (Rule("drop"), f"{proxy.address} keeps failing"),
        (Rule(403, code="InvalidAccessKeyId"), f"{proxy.address} rejects the credentials (InvalidAccessKeyId)"),
        (Rule(403, code="SignatureDoesNotMatch"), f"{proxy.address} rejects the credentials (SignatureDoesNotMatch)"),
        (Rule(400, code="ExpiredToken"), f"{proxy.address} rejects the credentials (ExpiredToken)"),
        (Rule(403, code="AccessDenied"), "access denied (AccessDenied)"),
    ):
        proxy.rules = [rule]
        message = sentence(lambda: build(tmp_path))
        assert message.startswith(f"{REMOTE}/val/index.json: {said}"), message
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_bucket_no_index_no_credentials(stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no bucket 'image'" in sentence(lambda: build(tmp_path, path="s3://image/set"))
    assert "set/a/val/index.json: is missing" in sentence(lambda: build(tmp_path, path=f"{REMOTE}/a"))
    s3_client().put_object(Bucket="images", Key="set/val/index.json", Body=b'{"version": 2, "shards": [{')
    assert "val/index.json: is malformed" in sentence(lambda: build(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "val/index.json: no credentials" in sentence(lambda: build(tmp_path))


def test_the_password_of_an_endpoint_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, "http://somebody:very-secret@127.0.0.1:1")
    monkeypatch.setattr(s3, "FIRST_PATIENCE", 0.0)
    message = sentence(lambda: build(tmp_path))
    assert "127.0.0.1:1" in message and "very-secret" not in message


@pytest.mark.parametrize("workers", [0, 2])
def test_a_slow_download_is_not_abandoned(
    workers: int, folder: Path, proxy: FaultProxy, tmp_path: Path, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than every limit but makes progress, so it is neither abandoned nor repeated."""
    monkeypatch.setattr(s3, "PATIENCE", 5.0)
    monkeypatch.setattr(s3, "_CHUNK", 3_000)
    monkeypatch.setattr(shard_cache, "STALLED", 5.0)
    upload(make_mds(folder / "val", tmp_path / "set/val"), "images", "set/val")
    proxy.rules = [Rule("slow", "shard.00000.mds", pause=0.35)]
    images, labels = everything(build(tmp_path / "cache", workers))
    assert torch.equal(images, reference[0]) and torch.equal(labels, reference[1])
    assert proxy.count("shard.00000.mds") == 1


def test_a_download_whose_process_died_is_taken_over(
    stored: str, proxy: FaultProxy, tmp_path: Path, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.rules = [Rule("hang", "shard.00000.mds", times=1)]
    spec = build(tmp_path)
    fetch = spec.dataloader.dataset.cache.fetch
    victim = multiprocessing.get_context("fork").Process(target=fetch, args=(0,))
    victim.start()
    wait_for(lambda: proxy.failed)
    victim.kill()
    victim.join()
    assert torch.equal(everything(spec)[0], reference[0])


def test_a_program_that_exits_during_downloads(small_shards: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    """Prefetching stops with the program, leaves no file, and does not touch freed memory."""
    upload(small_shards, "images", "set")
    proxy.rules = [Rule("slow", "shard", pause=0.01)]

    def program() -> None:
        atexit._clear()  # registered by the tests
        odd: list[object] = []
        threading.excepthook = odd.append
        batches = iter(build(tmp_path).dataloader)
        next(batches)
        atexit._run_exitfuncs()
        for thread in threading.enumerate():
            if thread.name.startswith("prefetch-"):
                thread.join()
        os._exit(len(odd))

    process = multiprocessing.get_context("fork").Process(target=program)
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert 0 < proxy.count("shard") < len(list(small_shards.glob("val/shard.*")))
    assert_whole(tmp_path, small_shards)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[int]:
    """Make a folder that holds `size` bytes; yield the error code that follows.

    A tmpfs if we may mount one, otherwise a limit on the file size, which only the last bytes of a shard exceed.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield errno.ENOSPC
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        yield errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["shards", "compressed"])
def test_a_full_disk(kind: str, s3_server: str, tmp_path: Path, reference, request: pytest.FixtureRequest) -> None:
    """Reported, without partial files; the next run continues from what fitted."""
    source: Path = request.getfixturevalue(kind)
    upload(source, "images", "set")
    cache = tmp_path / "cache"
    with small_disk(cache, 80 << 10) as code:
        message = sentence(lambda: list(build(cache, workers=2).dataloader))
        assert message.startswith(f"{REMOTE}/val/shard.") and os.strerror(code) in message and str(cache) in message
        assert "local=" in message
        wait_for(lambda: not list(cache.rglob("*.part")))
        if code == errno.ENOSPC:
            assert list(cache.rglob("shard.*.mds"))
        if kind == "shards":
            assert_whole(cache, source)
        shutil.copytree(cache, tmp_path / "larger", ignore=shutil.ignore_patterns("*.part"))
    assert torch.equal(everything(build(tmp_path / "larger"))[0], reference[0])
