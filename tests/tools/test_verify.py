"""Every image is decoded; each fault gives a sentence and exit status 1."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from loaders.images import native
from loaders.storage.inspection_splits import Split
from tests.image_files import make_imagefolder, make_mds, make_shards
from tests.runs import ROOT
from tests.s3 import s3_client, upload
from tools.verify.__main__ import run
from tools.verify.compare import compare_with_imagenet

pytestmark = pytest.mark.slow

Verify = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, each with 5 images in train/ and in val/, one of them a photograph; tests do not write to it."""
    root = make_imagefolder(tmp_path_factory.mktemp("folder"), per_class=5)
    photograph = Image.fromarray(load_sample_images().images[0])
    photograph.save(root / "train/cat/0000.jpeg")
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in shards, training's compressed; tests do not write to it."""
    root = tmp_path_factory.mktemp("shards")
    make_mds(folder / "train", root / "train", size_limit=8_000, compression="zstd:3")
    make_mds(folder / "val", root / "val", size_limit=8_000)
    (root / "classes.json").write_text('["cat", "dog", "person"]')
    return root


@pytest.fixture
def verify(capsys: pytest.CaptureFixture) -> Verify:
    """Function that runs the command in this process and returns (exit status, output)."""

    def verify(*words: object) -> tuple[int, str]:
        status = run([*map(str, words), "--workers=2"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out + captured.err

    return verify


def test_command(folder: Path) -> None:
    words = [sys.executable, "-m", "tools.verify", str(folder), "--workers=1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "no faults" in done.stdout and "32x32 / 32x32 / 640x427" in done.stdout
    assert "30 images in" in done.stdout and "img/s" in done.stdout


def test_every_fault_of_images(verify: Verify, folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "set")
    whole = (root / "train/cat/0000.jpeg").read_bytes()
    (root / "train/cat/0000.jpeg").write_bytes(whole[: len(whole) // 2])
    (root / "val/cat/0000.jpeg").write_bytes(whole[:20_000] + bytes(512) + whole[20_512:])
    (root / "train/dog/0001.jpeg").write_bytes(b"")
    (root / "train/dog/0002.jpeg").write_bytes(b"no image")
    (root / "train/person/0003.jpeg").unlink()
    (root / "train/person/0003.jpeg").symlink_to("nowhere")
    shutil.copy(root / "train/person/0000.jpeg", root / "val/cat/stranger.jpeg")
    shutil.copy(root / "train/cat/0002.jpeg", root / "train/cat/again.jpeg")
    status, said = verify(root)
    scan = f"{root}/val/cat/0000.jpeg: is damaged (Corrupt JPEG data: "
    assert status == 1 and (scan in said) == native.available() == ("6 faults" in said)
    assert ("was not checked" in said) != native.available() and said.count("Corrupt JPEG") == native.available()
    assert f"{root}/train/cat/0000.jpeg: cannot be read as an image" in said
    assert f"{root}/train/dog/0001.jpeg: is an empty file" in said
    assert f"{root}/train/dog/0002.jpeg: cannot be read as an image" in said
    assert f"{root}/train/person/0003.jpeg: cannot be read (No such file or directory). " in said
    assert f"{root}/val/cat/stranger.jpeg: is the same file as {root}/train/person/0000.jpeg" in said
    assert "train: 1 image is a copy of another in it" in said


def test_faults_of_structure(verify: Verify, folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "set")
    for path in (root / "val/dog").iterdir():
        path.unlink()
    status, said = verify(root)
    assert status == 1 and "no images in 1 of its classes (dog)" in said and "1 fault" in said
    (root / "val/dog").rmdir()
    assert "1 class is in train/ but not in val/ (dog)" in verify(root)[1]
    shutil.rmtree(root / "val")
    status, said = verify(root)
    assert status == 1 and "has no val/" in said and "15 images in" in said, "train/ must be checked anyway"
    assert "no such folder" in verify(tmp_path / "nowhere")[1]
    assert "needs a cache folder" in verify("gs://bucket/set")[1]


def test_shards_without_fault(verify: Verify, shards: Path) -> None:
    before = sorted(shards.rglob("*"))
    status, said = verify(shards)
    assert status == 0 and "no faults" in said and "30 images in" in said
    assert sorted(shards.rglob("*")) == before, "no shard may be decompressed next to the originals"


def test_every_fault_of_shards(verify: Verify, shards: Path, tmp_path: Path) -> None:
    """Each shard's hash is checked, including the last one's; intact shards are decoded anyway."""
    root = shutil.copytree(shards, tmp_path / "set")
    names = {split: sorted(path.name for path in (root / split).glob("shard.*")) for split in ("train", "val")}
    last = root / "train" / names["train"][-1]
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    (root / "val" / names["val"][0]).unlink()
    (root / "classes.json").write_text('["cat", "dog"]')
    status, said = verify(root)
    assert status == 1
    assert f"{last}: is damaged (its sha1 is not the recorded one)" in said
    assert f"{root}/val/{names['val'][0]}: is missing, though index.json lists it" in said
    assert "labels such as 2 are outside the classes (0 to 1 in classes.json)" in said
    (root / "train/index.json").write_text("{")
    status, said = verify(root)
    assert status == 1 and f"{root}/train/index.json: is malformed" in said and "val/shard" in said


def test_images_in_shards(verify: Verify, folder: Path, tmp_path: Path) -> None:
    """An image in both train and val, a damaged image, and a class that only val has."""
    root = shutil.copytree(folder, tmp_path / "set")
    shutil.copy(root / "train/person/0000.jpeg", root / "val/cat/0000.jpeg")
    make_shards(root, tmp_path / "mds")
    status, said = verify(tmp_path / "mds")
    assert status == 1 and "1 fault" in said
    assert "val/shard.00000.mds, sample 0: is the same file as" in said and "shard.00000.mds, sample 10," in said
    write_shard(tmp_path / "bad/train", [(0, jpeg()), (1, jpeg()[:-20])])
    write_shard(tmp_path / "bad/val", [(0, jpeg(1)), (2, jpeg(2))])
    status, said = verify(tmp_path / "bad")
    assert status == 1 and "train/shard.00000.mds, sample 1: cannot be read as an image" in said
    write_shard(tmp_path / "bad2/train", [(0, jpeg()), (1, jpeg(3))])
    write_shard(tmp_path / "bad2/val", [(0, jpeg(1)), (2, jpeg(2))])
    assert "val: 1 labels (2) do not occur in train" in verify(tmp_path / "bad2")[1]


def jpeg(seed: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def write_shard(out: Path, samples: list[tuple[int, bytes]]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(out), columns={"x": "bytes", "y": "int"}, hashes=["sha1"]) as writer:
        for label, image in samples:
            writer.write({"x": image, "y": label})


def test_shards_in_s3(verify: Verify, s3_server: str, shards: Path, tmp_path: Path) -> None:
    """Through a cache: a damaged cached file is fetched again, a fault in the store is reported."""
    remote = upload(shards, "images", "set")
    cache = tmp_path / "cache"
    assert verify(remote, cache)[0] == 0
    name = sorted(path.name for path in (cache / "val").glob("shard.*"))[1]
    (cache / "val" / name).write_bytes((shards / "val" / name).read_bytes()[:-1])
    assert verify(remote, cache)[0] == 0
    assert (cache / "val" / name).read_bytes() == (shards / "val" / name).read_bytes()
    s3_client().delete_object(Bucket="images", Key=f"set/val/{name}")
    (cache / "val" / name).unlink()
    status, said = verify(remote, cache)
    assert status == 1 and f"{remote}/val/{name}: is missing" in said and "1 fault" in said
    assert "has no bucket 'other'" in verify("s3://other/set", cache)[1]


def found(classes: list[str] | None, train: int, val: int, number: int = 1000) -> str | None:
    """Return the remark on a data set with these numbers of images and classes."""
    splits = [Split(name, [], images, classes, str) for name, images in (("train", train), ("val", val))]
    for split in splits:
        split.labels[:] = np.arange(len(split.labels)) % number
        split.finish()
    return compare_with_imagenet(*splits)


def test_imagenet_is_recognized() -> None:
    wnids = [f"n{number:08}" for number in range(1000)]
    assert "complete" in str(found(wnids, 1_281_167, 50_000))
    assert "complete" in str(found(None, 1_281_167, 50_000))
    said = str(found(wnids, 1_281_100, 49_999))
    assert "train has 1,281,100 of 1,281,167 images (67 missing)" in said and "not all of it" in said
    assert "val has 49,999 of 50,000 images (1 missing)" in said and "n00000999: 49" in said
    assert "998 of 1,000 classes" in str(found(wnids[:998], 1_281_167, 50_000, 998))
    assert "train has 100,000 of" in str(found(wnids, 100_000, 50_000)), "a subset of the images in all classes"
    assert found([f"class {number}" for number in range(1000)], 100_000, 50_000) is None
    assert found(["cat", "dog"], 20, 10, 2) is None


def test_deep_gray_images_get_a_remark(verify: Verify, tmp_path: Path) -> None:
    root = make_imagefolder(tmp_path / "set", per_class=2)
    for name in ("train/cat/a.png", "train/dog/b.tif"):
        Image.fromarray(np.full((40, 50), 30_000, np.uint16)).save(root / name)
    status, said = verify(root)
    said = " ".join(said.split())
    assert status == 0 and "train: 2 images are gray with more than 8 bits per pixel" in said
    assert "val: 1" not in said and "val: 2" not in said
