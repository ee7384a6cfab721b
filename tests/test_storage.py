"""Checkpoints and data in S3, tested with a local S3 server."""

import contextlib
import os
import random
import socket
import threading
from pathlib import Path

import pytest
import torch

from common import s3
from common.folders import LocalFolder, S3Folder, open_folder
from config import UserError, load
from tests.image_files import make_mds
from tests.loaders.proxy import FaultProxy
from tests.runs import assert_same_weights, run_main, small_yaml
from tests.s3 import s3_client, upload, use_endpoint
from training.checkpoint_files import check_writable, is_whole, newest_first, write
from training.checkpoints import Checkpoints, to_start_from
from training.interrupt import StopRequest


def names(bucket: str) -> set[str]:
    listing = s3_client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"] for item in listing}


def test_train_from_s3_with_checkpoints_in_s3(s3_server, tmp_path: Path, image_folder: Path) -> None:
    """Compressed shards from S3, checkpoints to S3 and a resume from S3 give equal weights."""
    bucket = "recipes"
    make_mds(image_folder / "train", tmp_path / "mds/train", compression="zstd:3", size_limit=16_000)
    make_mds(image_folder / "val", tmp_path / "mds/val", size_limit=8_000)
    assert len(list((tmp_path / "mds/train").glob("shard.*"))) >= 2
    upload(tmp_path / "mds", bucket, "digits")
    yaml = small_yaml(tmp_path, image_folder)
    words = [
        yaml,
        *(f"{name}.is_streaming=true" for name in ("train_dataset", "eval_dataset")),
        *(f"{name}.path=s3://{bucket}/digits" for name in ("train_dataset", "eval_dataset")),
        "save_folder=s3://recipes/{run_name}/checkpoints",
        "save_num_checkpoints_to_keep=2",
        "autoresume=true",
    ]

    def train(name: str, cache: str, *more: str):
        local = [f"{d}.local={tmp_path / cache}" for d in ("train_dataset", "eval_dataset")]
        return run_main(*words, f"run_name={name}", *local, *more, cwd=tmp_path)

    whole = train("whole", "cache1", "save_interval=1ep")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    kept = {f"whole/checkpoints/{name}-rank0.pt" for name in ("ep1-ba4", "ep2-ba8", "best")}
    assert {key for key in names(bucket) if key.startswith("whole/")} == kept

    # Delete the last checkpoint; the run resumes from S3 with an empty cache and no local checkpoint.
    client = s3_client()
    client.download_file(bucket, "whole/checkpoints/ep2-ba8-rank0.pt", str(tmp_path / "uninterrupted.pt"))
    client.delete_object(Bucket=bucket, Key="whole/checkpoints/ep2-ba8-rank0.pt")
    again = train("whole", "cache2", "save_interval=1ep")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "resuming from s3://recipes/whole/checkpoints/ep1-ba4-rank0.pt" in again.stdout
    client.download_file(bucket, "whole/checkpoints/ep2-ba8-rank0.pt", str(tmp_path / "resumed.pt"))
    assert_same_weights(tmp_path / "uninterrupted.pt", tmp_path / "resumed.pt")
    assert not (tmp_path / "s3:").exists(), "a local copy was left"

    # Evaluate from S3: only the evaluation data is streamed, and the weights are the latest checkpoint in S3.
    evaluated = run_main(
        small_yaml(tmp_path, image_folder),
        "is_train=false",
        "eval_dataset.is_streaming=true",
        f"eval_dataset.path=s3://{bucket}/digits",
        f"eval_dataset.local={tmp_path / 'cache3'}",
        "load_path=s3://recipes/whole/checkpoints/latest-rank{rank}.pt",
        cwd=tmp_path,
    )
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "top-1" in evaluated.stdout


@pytest.mark.parametrize("words", ["autoresume=true", "load_path={}", "is_train=false load_path={}"])
def test_a_checkpoint_is_downloaded_and_verified_once(
    words: str, s3_server: str, workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a run that resumes from it, starts from it or evaluates it."""
    s3_client().create_bucket(Bucket="store")
    address = "s3://store/run/ep1-ba4-rank0.pt"
    write({"state": {"model": {"x": torch.ones(3)}}}, open_folder("s3://store/run"), "ep1-ba4-rank0.pt")
    verified: list[Path] = []
    monkeypatch.setattr("training.saved.is_whole", lambda path: verified.append(path) or is_whole(path))
    run = load([str(small_yaml(workdir, image_folder)), *words.format(address).split(), "run_name=it"])
    saver = Checkpoints(open_folder("s3://store/run"), "1ep", 2, StopRequest())
    with FaultProxy(s3_server) as proxy:
        use_endpoint(monkeypatch, proxy.address)
        saved = to_start_from(run.config, saver)
        assert proxy.count("ep1-ba4-rank0.pt") == 1
    assert saved is not None and saved.address == address
    assert len(verified) == 1 and not verified[0].exists(), "the downloaded copy was not removed"


def test_missing_bucket(s3_server, tmp_path: Path, image_folder: Path) -> None:
    done = run_main(small_yaml(tmp_path, image_folder), "save_folder=s3://nowhere/at/all", cwd=tmp_path)
    assert done.returncode == 1
    assert "s3://nowhere/at/all" in done.stderr and "has no bucket 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_local_and_s3_folders(kind: str, s3_server, tmp_path: Path) -> None:
    if kind == "s3":
        s3_client().create_bucket(Bucket="folder")
    folder = open_folder("s3://folder/a/b" if kind == "s3" else str(tmp_path / "a/b"))
    assert isinstance(folder, S3Folder if kind == "s3" else LocalFolder)
    assert folder.names() == []
    check_writable(folder)
    for name in ("ep1-ba10-rank0.pt", "ep0-ba9-rank0.pt", "ep2-ba100-rank0.pt", "best-rank0.pt"):
        folder.scratch.mkdir(parents=True, exist_ok=True)
        file = folder.scratch / "new.tmp"
        file.write_text(name)
        folder.put(file, name)
        assert not file.exists()
    assert newest_first(folder) == ["ep2-ba100-rank0.pt", "ep1-ba10-rank0.pt", "ep0-ba9-rank0.pt"]
    for _ in range(2):  # a resumed run copies again
        folder.copy("ep0-ba9-rank0.pt", "best-rank0.pt")
    assert folder.fetch("best-rank0.pt", tmp_path).read_text() == "ep0-ba9-rank0.pt"
    folder.delete("ep0-ba9-rank0.pt")
    folder.delete("ep0-ba9-rank0.pt")
    assert folder.names() == ["best-rank0.pt", "ep1-ba10-rank0.pt", "ep2-ba100-rank0.pt"]


def test_an_endpoint_that_refuses_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setattr(s3, "FIRST_PATIENCE", 0.0)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1") as caught:
        check_writable(S3Folder("s3://bucket/folder"))
    assert "very-secret" not in str(caught.value)


def test_store_that_never_answers_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails within two minutes, whether or not the upload can be aborted; the constants are shortened here."""
    assert 2 * s3.ATTEMPTS * s3.ANSWER_TIMEOUT < 120 - 2 * s3.ATTEMPTS
    for name, value in {"ANSWER_TIMEOUT": 0.2, "ATTEMPTS": 1, "PATIENCE": 0.0}.items():
        monkeypatch.setattr(s3, name, value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        (tmp_path / "file").write_text("content")
        with pytest.raises(UserError, match=r"s3://bucket/run/x.pt: http://127\.0\.0\.1:\d+ does not answer"):
            S3Folder("s3://bucket/run").put(tmp_path / "file", "x.pt")


LIST = "<ListBucketResult><IsTruncated>true</IsTruncated>{}</ListBucketResult>"
ENDLESS = LIST.format("<NextContinuationToken>x</NextContinuationToken>")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("301 Moved\r\nLocation: http://127.0.0.1:1/", ""),  # a web server that redirects
        ("200 OK", "hello"),
        ("200 OK", LIST.format("")),
        ("200 OK", ENDLESS),
    ],
)
def test_answers_that_are_not_from_s3(head: str, body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives a sentence, without endless requests."""
    monkeypatch.setattr(s3, "PATIENCE", 0.0)
    answer = f"HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed at the end of the test
            while True:
                with listener.accept()[0] as asking:
                    asking.recv(65536)
                    asking.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        use_endpoint(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        folder = S3Folder("s3://bucket/run")
        with contextlib.nullcontext() if body == ENDLESS else pytest.raises(UserError, match=r"^s3://bucket/run: "):
            assert folder.names() == []
        (tmp_path / "file").touch()
        os.truncate(tmp_path / "file", 9_000_000)  # large enough for a multipart upload
        with pytest.raises(UserError, match=r"^s3://bucket/run/x.pt: "):
            folder.put(tmp_path / "file", "x.pt")
        assert (tmp_path / "file").exists()
        listener.shutdown(socket.SHUT_RDWR)


def test_a_transient_fault_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without drawing from the global generator, which training uses."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError

    use_endpoint(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setattr(s3, "_PAUSES", (0.0, 0.0))
    folder, calls = S3Folder("s3://bucket/run"), []

    def upload_file(**_: object) -> None:
        calls.append(random.random())
        if len(calls) == 1:
            answer = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
            try:
                raise ClientError(answer, "PutObject")
            except ClientError as error:
                raise S3UploadFailedError(str(error))  # noqa: B904  boto3 raises it this way

    monkeypatch.setattr(s3.client(), "upload_file", upload_file)
    (tmp_path / "file").touch()
    before = random.getstate()
    folder.put(tmp_path / "file", "x.pt")
    assert len(calls) == 2 and random.getstate() == before and not (tmp_path / "file").exists()
    monkeypatch.setattr(s3, "PATIENCE", -1.0)
    calls.clear()
    with pytest.raises(UserError, match=r"keeps failing \(SlowDown\)"):
        folder.put(tmp_path / "file", "x.pt")
