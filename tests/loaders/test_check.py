"""`python data.py`: each fault gives a sentence and exit status 1."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import check_dataloader
from loaders.storage.inspection_splits import extent
from loaders.transport.decompression import decompressed
from tests.image_files import make_imagefolder
from tests.s3 import free_port, s3_client, upload, use_endpoint

ROOT = Path(__file__).resolve().parents[2]
Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Check:
    """Function that runs the command in this process and returns (exit status, output)."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["data.py", *map(str, arguments)])
        status = 0
        try:
            check_dataloader()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out + captured.err

    return run


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the data set, to damage."""
    return shutil.copytree(folder, tmp_path / "set")


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with every warning shown, except Python 3.12's of workers that are forks."""
    return subprocess.run(
        [sys.executable, str(ROOT / "data.py"), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONWARNINGS": "default,ignore:This process"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_command_lists_every_fault(broken: Path, tmp_path: Path) -> None:
    (broken / "train/dog/0003.jpeg").write_bytes(b"not an image")
    (broken / "val/cat/0001.jpeg").write_bytes(b"")
    for path in (broken / "val/person").iterdir():
        path.unlink()
    done = command(broken, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    for expected in ("3 faults", "dog/0003.jpeg: cannot be read", "cat/0001.jpeg: is an empty file", "(person)"):
        assert expected in done.stdout


@pytest.mark.slow
def test_command_succeeds_and_helps(folder: Path, tmp_path: Path) -> None:
    done = command(folder, "--crop-size", 32, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "img/s" in done.stdout
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 800


def test_help(check: Check) -> None:
    status, said = check("--help")
    assert status == 0 and "python data.py s3://bucket/imagenet /local/cache" in said


def test_structure(check: Check, broken: Path, tmp_path: Path) -> None:
    status, said = check(tmp_path / "nowhere")
    assert status == 1 and "no such folder" in said
    (tmp_path / "archive.7z").write_bytes(b"")
    assert "unpack" in check(tmp_path / "archive.7z")[1]
    shutil.move(broken / "val", broken / "test")
    status, said = check(broken)
    assert status == 1 and "has no val/ but has test/" in said and "mv " in said
    shutil.rmtree(broken / "train")
    status, said = check(broken)
    assert status == 1 and "2 faults" in said and "has no train/" in said


def test_flat_validation_folder(check: Check, broken: Path) -> None:
    for number, path in enumerate(list((broken / "val").rglob("*.jpeg"))):
        path.rename(broken / f"val/ILSVRC2012_val_{number:08}.JPEG")
    for path in (broken / "val").iterdir():
        if path.is_dir():
            path.rmdir()
    status, said = check(broken)
    assert status == 1 and "60 images lie directly in it" in said


def test_classes_that_disagree(check: Check, broken: Path) -> None:
    (broken / "val/dog").rename(broken / "val/hound")
    status, said = check(broken)
    assert status == 1 and "in train/ but not in val/ (dog)" in said and "in val/ but not in train/ (hound)" in said


def test_truncated_image(check: Check, broken: Path) -> None:
    path = broken / "val/dog/0002.jpeg"
    path.write_bytes(path.read_bytes()[:-200])
    status, said = check(broken)
    assert status == 1 and f"{path}: cannot be read as an image" in said and "1 fault" in said


@pytest.mark.slow
def test_deep_gray_images_get_a_remark(check: Check, broken: Path) -> None:
    deep = Image.fromarray(np.full((40, 50), 30_000, np.uint16))
    for name in ("train/cat/a.png", "train/dog/b.tif", "val/cat/c.png"):
        deep.save(broken / name)
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(broken / "val/dog/d.png")
    status, said = check(broken)
    said = " ".join(said.split())
    assert status == 0 and "train: 2 images are gray with more than 8 bits per pixel; training clips" in said
    assert "val: 1 image is gray with more than 8 bits" in said


@pytest.mark.slow
def test_shards_of_both_kinds(check: Check, shards: Path, compressed: Path, tmp_path: Path) -> None:
    status, said = check(shards, shards, "--crop-size", 32)
    assert status == 0 and "shards" in said and "32x32" in said
    status, said = check(compressed, tmp_path / "cache", "--crop-size", 32)
    assert status == 0 and (tmp_path / "cache/val/index.json").exists()


@pytest.mark.slow
def test_shards_that_exist_both_raw_and_compressed(check: Check, compressed: Path, tmp_path: Path) -> None:
    """As in a cache: raw, compressed or both. One is enough, and those that exist must be intact."""
    source = shutil.copytree(compressed, tmp_path / "set")
    for split in ("train", "val"):
        for number, shard in enumerate(json.loads((source / split / "index.json").read_text())["shards"]):
            packed, raw = (source / split / shard[kind]["basename"] for kind in ("zip_data", "raw_data"))
            raw.write_bytes(decompressed(shard["compression"], packed.read_bytes(), shard["raw_data"]["bytes"]))
            if number == 1:
                packed.unlink()
            elif number == 2:
                raw.unlink()
    before = set(source.rglob("*"))
    status, said = check(source, source, "--crop-size", 32)
    assert status == 0, said
    assert before <= set(source.rglob("*")), "a file of the source was deleted"
    status, said = check(source, tmp_path / "cache")
    assert status == 1 and said.count(".zstd: is missing") == 2, "a cache is filled from the compressed shards"
    raw = source / "train" / json.loads((source / "train/index.json").read_text())["shards"][0]["raw_data"]["basename"]
    raw.write_bytes(raw.read_bytes()[:-1])
    status, said = check(source, source)
    assert status == 1 and f"{raw}: is damaged" in said and "1 fault" in said


def test_faults_of_shards_on_disk(check: Check, shards: Path, folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(shards, tmp_path / "set")
    data = bytearray((source / "train/shard.00001.mds").read_bytes())
    data[1000] ^= 1
    (source / "train/shard.00001.mds").write_bytes(data)
    (source / "val/shard.00002.mds").unlink()
    status, said = check(source, tmp_path / "cache")
    assert status == 1 and "2 faults" in said
    assert "train/shard.00001.mds: is damaged" in said and "val/shard.00002.mds: is missing" in said
    (source / "train/index.json").unlink()
    (source / "val/index.json").write_text("{")
    status, said = check(source, tmp_path / "cache")
    assert status == 1 and "train/index.json: is missing" in said and "val/index.json: is malformed" in said
    assert "is_streaming=true" in check(shards)[1], "shards given as images"
    assert "is_streaming=false" in check(folder, tmp_path / "cache2")[1], "images given as shards"


def test_s3(check: Check, s3_server: str, shards: Path, tmp_path: Path) -> None:
    remote = upload(shards, "images", "set")
    assert "cache folder" in check(remote)[1]
    status, _ = check(remote, tmp_path / "cache", "--crop-size", 32)
    assert status == 0
    s3_client().delete_object(Bucket="images", Key="set/train/shard.00001.mds")
    status, said = check(remote, tmp_path / "cache2")
    assert status == 1 and f"{remote}/train/shard.00001.mds: is missing" in said
    status, said = check("s3://images/else", tmp_path / "cache3")
    assert status == 1 and "s3://images/else/train/index.json: is missing" in said and "2 faults" in said
    status, said = check("s3://other/set", tmp_path / "cache4")
    assert status == 1 and said.count("has no bucket 'other'") == 1


def test_s3_out_of_reach(check: Check, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    status, said = check("s3://images/set", tmp_path / "cache")
    assert status == 1 and "no credentials" in said and "AWS_ACCESS_KEY_ID" in said
    use_endpoint(monkeypatch, f"http://127.0.0.1:{free_port()}")
    status, said = check("s3://images/set", tmp_path / "cache")
    assert status == 1 and "cannot be reached" in said


@pytest.mark.slow
def test_large_sets_are_sampled(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaders.storage.inspection.SMALL", 10)
    monkeypatch.setattr("loaders.storage.inspection.SAMPLE", 5)
    root = make_imagefolder(tmp_path / "set", per_class=5)
    (root / "train/cat/notes.txt").write_text("of no consequence")
    status, said = check(root, "--crop-size", 32)
    assert status == 0 and "5 of its 15 images were decoded" in said and "1 file is not an image" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--workers", "-1"], "--workers: -1 given, but it must be 0 or more"),
        (["--crop-size", "0"], "--crop-size: 0 given, but it must be 1 or more"),
        (["--batch-size", "few"], "--batch-size: 'few' given, but it must be a whole number"),
    ],
)
def test_bad_words(check: Check, folder: Path, words: list[str], expected: str) -> None:
    status, said = check(folder, *words)
    assert status == 2 and expected in said


def test_sheet_that_cannot_be_written(check: Check, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "contact_sheet.png").mkdir()
    status, said = check(folder)
    assert status == 2 and f"{tmp_path}/contact_sheet.png: cannot be written (Is a directory)" in said


@pytest.mark.slow
def test_unfinished_conversions(check: Check, broken: Path) -> None:
    for name, command in ((".ffcv-0123", "python -m tools.convert SRC"), (".convert", "python -m tools.convert a b")):
        (broken / name).mkdir()
        (broken / ".convert/command").write_text(command) if name == ".convert" else None
        status, said = check(broken)
        assert status == 1 and f"conversion is unfinished. To resume it, type: {command}" in said
    (broken / ".ffcv-0123").rmdir()
    assert check(broken, "--crop-size", 16)[0] == 0, "a folder .convert without a plan is not a conversion"


def test_tables_fit_a_narrow_terminal(
    check: Check, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1800, 1200)).save(broken / "train/cat/0000.jpeg")
    Image.new("RGB", (2000, 1200)).save(broken / "train/cat/0001.jpeg")
    monkeypatch.setenv("COLUMNS", "80")
    status, said = check(broken, "--batch-size", 128, "--workers", 0)
    tables = [line for line in said.splitlines() if line[:1] in "┏┃┡│└"]
    assert status == 0 and "…" not in said and max(map(len, tables)) <= 80 and len(tables) > 10
    assert "2000x1200" in said and "[60, 3, 224, 224]" in said


def test_an_address_with_a_slash_too_few(check: Check) -> None:
    status, said = check("s3:/bucket/set")
    assert status == 1 and "did you mean s3://bucket/set?" in said


def test_extent() -> None:
    assert extent([(10, 5), (20, 50), (30, 6)]) == "10x5 / 20x6 / 30x50"
    assert extent([]) == "-"
