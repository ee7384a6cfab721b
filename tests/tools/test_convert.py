"""Conversion: no image lost, changed or converted twice unasked, and a sentence for each fault."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from loaders.images import native
from loaders.images.decoding import decode, open_image
from loaders.storage.beton import BetonDataset
from tests.image_files import make_imagefolder, make_mds
from tests.s3 import s3_client, use_endpoint
from tests.tools.conversions import PIPELINE, convert, files_of, images_of, make_source, originals_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source"))


# The stock reader leaves the files that it decompresses open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_readers_find_every_byte(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from streaming import StreamingDataset as StockDataset

    assert convert(source, tmp_path / "mds", "--shard-mb", 0.01, "--compression", "zstd", "--hash", "xxh64") == 0
    assert "train" in capfd.readouterr().out
    shutil.copytree(tmp_path / "mds", tmp_path / "copy")
    for split in ("train", "val"):
        originals = originals_of(source, split)
        found = images_of(tmp_path / "mds", split)
        assert sorted(found) == sorted(originals)
        assert (found == originals) == (split == "val"), "only train must be shuffled"
        stock = StockDataset(local=str(tmp_path / "copy"), split=split, batch_size=1)
        for index, (image, label) in enumerate(found):
            sample = stock[index]
            assert sample["y"] == label and originals[sample["i"]] == (image, label)
            assert sample["x"].convert("RGB").tobytes() == Image.open(io.BytesIO(image)).convert("RGB").tobytes()
    assert json.loads((tmp_path / "mds" / "classes.json").read_text()) == ["cat", "dog", "person"]
    index = json.loads((tmp_path / "mds" / "train" / "index.json").read_text())
    assert len(index["shards"]) > 2 and list(index["shards"][0]["zip_data"]["hashes"]) == ["xxh64"]
    assert {label for _, label in images_of(tmp_path / "mds", "train")[:8]} == {0, 1, 2}
    assert not (tmp_path / "mds" / ".convert").exists() and not (tmp_path / "mds" / "skipped.txt").exists()


def test_shards_equal_the_published_writers(tmp_path: Path) -> None:
    root = make_imagefolder(tmp_path / "folder", per_class=3)
    shutil.rmtree(root / "train")
    make_mds(root / "val", tmp_path / "stock" / "val", hashes=["sha1"], compression="zstd")
    assert convert(root, tmp_path / "ours", "--compression", "zstd", workers=1) == 0
    (tmp_path / "ours" / "classes.json").unlink()
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock")


def test_two_runs_give_identical_bytes_and_only_large_images_change(source: Path, tmp_path: Path) -> None:
    words = ["--max-size", 64, "--quality", 80, "--shard-mb", 0.02]
    for workers in (1, 2):
        assert convert(source, tmp_path / str(workers), *words, workers=workers) == 0
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    changed = 0
    for (image, label), (original, right) in zip(
        images_of(tmp_path / "1", "val"), originals_of(source, "val"), strict=True
    ):
        assert label == right
        before = open_image(original)
        if max(before.size) <= 64:
            assert image == original
            continue
        changed += 1
        after = open_image(image)
        assert image.startswith(b"\xff\xd8") and max(after.size) == 64
        assert after.size == tuple(round(side * 64 / max(before.size)) for side in before.size)
        expected = io.BytesIO()
        before.resize(after.size, Image.Resampling.LANCZOS).save(expected, "JPEG", quality=80)
        assert image == expected.getvalue()
    assert changed == 6


def test_shards_from_compressed_shards_leave_them_alone(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "mds", "--shard-mb", 0.02, "--compression", "zstd") == 0
    before = files_of(tmp_path / "mds")
    assert convert(tmp_path / "mds", tmp_path / "again", "--max-size", 60) == 0
    assert files_of(tmp_path / "mds") == before
    sizes = [max(open_image(image).size) for image, _ in images_of(tmp_path / "again", "val")]
    assert max(sizes) == 60 and len(sizes) == 30


def test_unreadable_images_are_named(source: Path, tmp_path: Path) -> None:
    root = shutil.copytree(source, tmp_path / "root")
    bad = [root / "train" / "cat" / "0002.jpeg", root / "train" / "dog" / "0005.jpeg", root / "val" / "cat" / "x.png"]
    for path in bad[:2]:
        path.write_bytes(path.read_bytes()[:-300])
    bad[2].write_bytes(b"")
    whole = (root / "val" / "dog" / "photo.JPEG").read_bytes()
    if native.available():  # damage that PIL ignores
        bad.append(root / "val" / "dog" / "scan.JPEG")
        bad[3].write_bytes(whole[:20_000] + bytes(512) + whole[20_512:])
    command = [sys.executable, "-m", "tools.convert", str(root), str(tmp_path / "out"), "--workers", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert all(str(path) in run.stderr for path in bad[:2]) and "--skip-unreadable" in run.stderr
    for workers in (1, 2):
        out = tmp_path / str(workers)
        assert convert(root, out, "--shard-mb", 0.01, "--skip-unreadable", workers=workers) == 0
        lines = (out / "skipped.txt").read_text().splitlines()
        assert {line.split(":")[0] for line in lines} == set(map(str, bad)) and len(lines) == len(bad)
        assert [len(images_of(out, split)) for split in ("train", "val")] == [22, 30]
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_to_ffcv(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ffcv"
    assert convert(source, out, "--to", "ffcv", "--max-size", 100) == 0
    assert convert(source, tmp_path / "mds", "--max-size", 100) == 0
    assert sorted(path.name for path in out.iterdir()) == ["classes.json", "train.beton", "val.beton"]
    for split in ("train", "val"):
        dataset = BetonDataset(out, split, PIPELINE, seed=0)
        assert dataset.classes == ["cat", "dog", "person"]
        for index, (image, label) in enumerate(images_of(tmp_path / "mds", split)):
            found, there = dataset.read(index)
            assert there == label and decode(found).equal(decode(image))
    capfd.readouterr()
    assert convert(source, out, "--to", "ffcv") == 1
    assert "train.beton: exists already" in capfd.readouterr().err


def test_impossible_conversions_give_a_sentence(
    source: Path, tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object, status: int = 1) -> str:
        assert convert(*words) == status
        return capfd.readouterr().err

    out = tmp_path / "out"
    assert "no such folder" in refused(tmp_path / "imagnet", out)
    assert "--compression zst: no such kind" in refused(source, out, "--compression", "zst", status=2)
    assert "--hash crc: no such kind" in refused(source, out, "--hash", "crc", "--quality", 0, status=2)
    assert "--quality 80: images stay as they are" in refused(source, out, "--quality", 80, status=2)
    assert "did you mean s3://b/set?" in refused(source, "s3:/b/set")
    s3_client().create_bucket(Bucket="images")
    assert "s3://images/set: holds nothing. Expected shards" in refused("s3://images/set", out)
    s3_client().put_object(Bucket="images", Key="set/train/index.json", Body=b"{}")
    assert "add --local" in refused("s3://images/set", out)
    assert "nowhere else" in refused(source, "gs://bucket/set")
    assert "has no bucket 'nowhere'" in refused(source, "s3://nowhere/set")
    assert "only from local files" in refused(source, "s3://nowhere/set", "--to", "ffcv")
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in refused(source, tmp_path / "file" / "out")
    assert not out.exists()

    assert convert(source, out) == 0
    assert "train: exists already: 24 images in 1 shards" in refused(source, out)
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
    assert "1 class is in train/ but not in val/ (cat)" in refused(root, tmp_path / "other")

    use_endpoint(monkeypatch, s3_server)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in refused(source, "s3://images/set")


def test_without_decoding_the_shards_are_the_same(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Damage behind the header is not seen then; what is not an image still is."""
    assert convert(source, tmp_path / "decoded") == 0 and "per core" in capfd.readouterr().out
    assert convert(source, tmp_path / "trusted", "--no-decode") == 0
    check = f"only their headers read. To check them: python -m tools.verify {tmp_path}/trusted"
    assert check in capfd.readouterr().out
    assert files_of(tmp_path / "trusted") == files_of(tmp_path / "decoded")
    shutil.copytree(source, tmp_path / "damaged")
    image = sorted((tmp_path / "damaged/val/cat").iterdir())[0]
    image.write_bytes(image.read_bytes()[:-100])
    assert convert(tmp_path / "damaged", tmp_path / "refused") == 1
    assert convert(tmp_path / "damaged", tmp_path / "kept", "--no-decode") == 0
    assert image.read_bytes() in [data for data, _ in images_of(tmp_path / "kept", "val")]
    image.write_bytes(b"text")
    assert convert(tmp_path / "damaged", tmp_path / "text", "--no-decode") == 1
    assert f"{image}: cannot be read as an image" in capfd.readouterr().err
