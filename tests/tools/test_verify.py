"""Every picture is looked into: each fault is a sentence and exit status 1, and a flat val/ is sorted or left alone."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_images

from tests.pictures import make_imagefolder, make_mds
from tests.runs import ROOT
from tests.s3 import upload
from tools.verify import run
from tools.verifying.compare import compare_with_imagenet
from tools.verifying.folding import LOG
from tools.verifying.splits import Split

Verify = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 5 pictures in train/ and val/ each, one of them a photograph; never written to."""
    root = make_imagefolder(tmp_path_factory.mktemp("folder"), per_class=5)
    photograph = Image.fromarray(load_sample_images().images[0])
    photograph.save(root / "train/cat/0000.jpeg")
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards, training's compressed; never written to."""
    root = tmp_path_factory.mktemp("shards")
    make_mds(folder / "train", root / "train", size_limit=8_000, compression="zstd:3")
    make_mds(folder / "val", root / "val", size_limit=8_000)
    (root / "classes.json").write_text('["cat", "dog", "person"]')
    return root


@pytest.fixture
def verify(capsys: pytest.CaptureFixture) -> Verify:
    """Runs the command in this process: (exit status, what it said)."""

    def verify(*words: object) -> tuple[int, str]:
        status = run([*map(str, words), "--workers=2"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out + captured.err

    return verify


@pytest.fixture
def flat(folder: Path, tmp_path: Path) -> Path:
    """A copy whose val/ is as ImageNet's archive of validation pictures: 15 pictures, the first of class cat."""
    root = shutil.copytree(folder, tmp_path / "flat")
    pictures = sorted((root / "val").glob("*/*.jpeg"))
    for number, path in enumerate(pictures, 1):
        path.rename(root / f"val/ILSVRC2012_val_{number:08}.JPEG")
    for name in ("cat", "dog", "person"):
        (root / "val" / name).rmdir()
    return root


def answers() -> list[tuple[str, str]]:
    """The flat pictures' names and classes."""
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 16)]
    return list(zip(names, ["cat"] * 5 + ["dog"] * 5 + ["person"] * 5, strict=True))


def test_command(folder: Path) -> None:
    """As a user types it."""
    words = [sys.executable, "-m", "tools.verify", str(folder), "--workers=1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "no faults" in done.stdout and "32x32 / 32x32 / 640x427" in done.stdout
    assert "30 pictures in" in done.stdout and "img/s" in done.stdout


def test_every_fault_of_pictures(verify: Verify, folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "set")
    whole = (root / "train/cat/0000.jpeg").read_bytes()
    (root / "train/cat/0000.jpeg").write_bytes(whole[: len(whole) // 2])
    (root / "train/dog/0001.jpeg").write_bytes(b"")
    (root / "train/dog/0002.jpeg").write_bytes(b"no picture")
    (root / "train/person/0003.jpeg").unlink()
    (root / "train/person/0003.jpeg").symlink_to("nowhere")
    shutil.copy(root / "train/person/0000.jpeg", root / "val/cat/stranger.jpeg")
    shutil.copy(root / "train/cat/0002.jpeg", root / "train/cat/again.jpeg")
    status, said = verify(root)
    assert status == 1 and "5 faults" in said
    assert f"{root}/train/cat/0000.jpeg: cannot be read as a picture" in said
    assert f"{root}/train/dog/0001.jpeg: is an empty file" in said
    assert f"{root}/train/dog/0002.jpeg: cannot be read as a picture" in said
    assert f"{root}/train/person/0003.jpeg: cannot be read as a picture (FileNotFoundError" in said
    assert f"{root}/val/cat/stranger.jpeg: is the same file as {root}/train/person/0000.jpeg" in said
    assert "train: 1 pictures are copies of others in it" in said


def test_faults_of_structure(verify: Verify, folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "set")
    for path in (root / "val/dog").iterdir():
        path.unlink()
    status, said = verify(root)
    assert status == 1 and "no pictures in 1 of its classes (dog)" in said and "1 fault" in said
    (root / "val/dog").rmdir()
    assert "1 classes are in train/ but not in val/ (dog)" in verify(root)[1]
    shutil.rmtree(root / "val")
    status, said = verify(root)
    assert status == 1 and "has no val/" in said and "15 pictures in" in said, "train/ is looked into all the same"
    assert "no such folder" in verify(tmp_path / "nowhere")[1]
    assert "needs a cache folder" in verify("s3://bucket/set")[1]


def test_shards_without_fault(verify: Verify, shards: Path) -> None:
    before = sorted(shards.rglob("*"))
    status, said = verify(shards)
    assert status == 0 and "no faults" in said and "30 pictures in" in said
    assert sorted(shards.rglob("*")) == before, "nothing is unpacked beside the originals"


def test_every_fault_of_shards(verify: Verify, shards: Path, tmp_path: Path) -> None:
    """Each shard's hash is checked, the last ones' too; what is whole is looked into all the same."""
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
    assert "labels such as 2 are outside of the classes (0 to 1, by classes.json)" in said
    (root / "train/index.json").write_text("{")
    status, said = verify(root)
    assert status == 1 and f"{root}/train/index.json: is malformed" in said and "val/shard" in said


def test_pictures_in_shards(verify: Verify, folder: Path, tmp_path: Path) -> None:
    """A picture that train and val share, one that is damaged, and a class that is only evaluated."""
    root = shutil.copytree(folder, tmp_path / "set")
    shutil.copy(root / "train/person/0000.jpeg", root / "val/cat/0000.jpeg")
    for split in ("train", "val"):
        make_mds(root / split, tmp_path / "mds" / split)
    status, said = verify(tmp_path / "mds")
    assert status == 1 and "1 fault" in said
    assert "val/shard.00000.mds, sample 0: is the same file as" in said and "shard.00000.mds, sample 10," in said
    write_shard(tmp_path / "bad/train", [(0, jpeg()), (1, jpeg()[:-20])])
    write_shard(tmp_path / "bad/val", [(0, jpeg(1)), (2, jpeg(2))])
    status, said = verify(tmp_path / "bad")
    assert status == 1 and "train/shard.00000.mds, sample 1: cannot be read as a picture" in said
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
        for label, picture in samples:
            writer.write({"x": picture, "y": label})


def test_shards_in_s3(verify: Verify, s3_server: str, shards: Path, tmp_path: Path) -> None:
    """Through a cache, where a damaged file is fetched again; a fault at the store stays one."""
    remote = upload(shards, "pictures", "set")
    cache = tmp_path / "cache"
    assert verify(remote, cache)[0] == 0
    name = sorted(path.name for path in (cache / "val").glob("shard.*"))[1]
    (cache / "val" / name).write_bytes((shards / "val" / name).read_bytes()[:-1])
    assert verify(remote, cache)[0] == 0
    assert (cache / "val" / name).read_bytes() == (shards / "val" / name).read_bytes()
    boto3.client("s3").delete_object(Bucket="pictures", Key=f"set/val/{name}")
    (cache / "val" / name).unlink()
    status, said = verify(remote, cache)
    assert status == 1 and f"{remote}/val/{name}: is missing" in said and "1 fault" in said
    assert "has no bucket 'other'" in verify("s3://other/set", cache)[1]


def found(classes: list[str] | None, train: int, val: int, number: int = 1000) -> str | None:
    """What is said of a data set with so many pictures in so many classes."""
    splits = [Split(name, [], images, classes, str) for name, images in (("train", train), ("val", val))]
    for split in splits:
        split.labels[:] = np.arange(len(split.labels)) % number
        split.finish()
    return compare_with_imagenet(*splits)


def test_imagenet_is_recognised() -> None:
    wnids = [f"n{number:08}" for number in range(1000)]
    assert "complete" in str(found(wnids, 1_281_167, 50_000))
    assert "complete" in str(found(None, 1_281_167, 50_000))
    said = str(found(wnids, 1_281_100, 49_999))
    assert "train has 1,281,100 of 1,281,167 pictures (67 missing)" in said and "not all of it" in said
    assert "val has 49,999 of 50,000 pictures (1 missing)" in said and "n00000999: 49" in said
    assert "998 of 1,000 classes" in str(found(wnids[:998], 1_281_167, 50_000, 998))
    assert "train has 100,000 of" in str(found(wnids, 100_000, 50_000)), "a subset of all classes"
    assert found([f"class {number}" for number in range(1000)], 100_000, 50_000) is None
    assert found(["cat", "dog"], 20, 10, 2) is None


def test_a_flat_folder_is_detected(verify: Verify, flat: Path) -> None:
    status, said = verify(flat)
    assert status == 1 and "15 pictures lie directly in it" in said and "--fold MAPPING" in said
    (flat / "val/cat").mkdir()
    for name in ("dog", "person"):
        (flat / "val" / name).mkdir()
    status, said = verify(flat)
    assert status == 1 and "lie directly in it, beside the classes' folders" in said


@pytest.mark.parametrize("kind", ["text", "kaggle", "ordered", "numbers"])
def test_folding(kind: str, verify: Verify, flat: Path, folder: Path, tmp_path: Path) -> None:
    """Four kinds of mapping, one result; and back again."""
    mapping = tmp_path / "mapping.txt"
    shuffled = [answers()[at] for at in np.random.default_rng(0).permutation(15)]
    if kind == "text":
        mapping.write_text("".join(f"{name} {label}\n" for name, label in shuffled))
    elif kind == "kaggle":
        rows = [f"{Path(name).stem},{label} 85 1 499 272 {label} 1 2 3 4\n" for name, label in shuffled]
        mapping.write_text("ImageId,PredictionString\n" + "".join(rows))
    elif kind == "ordered":
        mapping.write_text("".join(f"{label}\n" for _, label in answers()))
    else:
        numbers = {"dog": 1, "person": 2, "cat": 3}
        mapping.write_text("".join(f"{numbers[label]}\n" for _, label in answers()))
        status, said = verify(flat, "--fold", mapping)
        assert status == 1 and "meta.mat" in said and len(list((flat / "val").iterdir())) == 15
        kit = np.array(
            [(n, name, "words") for name, n in numbers.items()],
            dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
        )
        savemat(tmp_path / "meta.mat", {"synsets": kit})
    before = {path.name: path.read_bytes() for path in (flat / "val").iterdir()}
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "sorted 15 pictures into folders" in said and "--unfold" in said
    for split in ("train", "val"):
        for name in ("cat", "dog", "person"):
            pictures = [path.read_bytes() for path in sorted((flat / split / name).iterdir())]
            assert pictures == [path.read_bytes() for path in sorted((folder / split / name).iterdir())]
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "nothing was moved" in said
    assert verify(flat, "--unfold")[0] == 0
    assert {path.name: path.read_bytes() for path in (flat / "val").iterdir()} == before and not (flat / LOG).exists()


@pytest.mark.parametrize("kind", ["text", "ordered"])
def test_an_interrupted_folding_goes_on(kind: str, verify: Verify, flat: Path, tmp_path: Path) -> None:
    """As after a kill: planned, some moved; the order of the names still counts those."""
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("".join(f"{name} {label}\n" if kind == "text" else f"{label}\n" for name, label in answers()))
    (flat / LOG).write_text("".join(f"{name},{label}/{name}\r\n" for name, label in answers()))
    for name, label in answers()[:8]:
        (flat / "val" / label).mkdir(exist_ok=True)
        (flat / "val" / name).rename(flat / "val" / label / name)
    status, said = verify(flat, "--fold", mapping)
    assert status == 0 and "sorted 7 pictures" in said
    assert verify(flat, "--unfold")[0] == 0 and len(list((flat / "val").glob("*.JPEG"))) == 15


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{name} {label}" for name, label in answers()[1:]], r"does not say the class of 1 of 15 pictures"),
        ([f"{name} {label}s" for name, label in answers()], "classes that train/ lacks (cats, dogs, persons)"),
        ([f"{name} {number}" for number, (name, _) in enumerate(answers())], "Numbers beside names"),
        ([label for _, label in answers()[1:]], "has 14 lines for 15 pictures"),
        ([*(f"{name} {label}" for name, label in answers()), f"{answers()[0][0]} dog"], "no class, or two"),
        ([], "is empty"),
    ],
)
def test_mappings_that_do_not_do(lines: list[str], said: str, verify: Verify, flat: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("\n".join(lines), encoding="utf-8")
    status, heard = verify(flat, "--fold", mapping)
    assert status == 1 and said in heard
    assert len(list((flat / "val").glob("*.JPEG"))) == 15 and not (flat / LOG).exists()


def test_folding_elsewhere(verify: Verify, flat: Path, tmp_path: Path) -> None:
    assert "cannot be read as a text file" in verify(flat, "--fold", tmp_path / "nowhere.txt")[1]
    assert "folders of a disk only" in verify("s3://bucket/set", tmp_path, "--fold", "x")[1]
    assert "nobody knows what was moved" in verify(flat, "--unfold")[1]
    (flat / "val/cat").mkdir()
    name = answers()[0][0]
    shutil.copy(flat / "val" / name, flat / "val/cat" / name)
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("name\n" + "".join(f"{name},{label}\n" for name, label in answers()))
    assert "gives name no class" in verify(flat, "--fold", mapping)[1]
    mapping.write_text("".join(f"{name},{label}\n" for name, label in answers()))
    status, said = verify(flat, "--fold", mapping)
    assert status == 1 and f"cat/{name} are there already" in said
    shutil.rmtree(flat / "train")
    assert "train: no such folder" in verify(flat, "--fold", mapping)[1]
