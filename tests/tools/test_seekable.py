"""Shards with seek tables: stock readers are not disturbed, and verify makes every table again."""

import json
import struct
from pathlib import Path

import pytest
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from streaming.vision import StreamingImageNet

from loaders.images import native
from loaders.storage.streaming import ShardDataset
from tests.loaders.jpegs import PHOTO, built, jpeg
from tests.tools.conversions import PIPELINE, convert, files_of, images_of, make_source, originals_of
from tools.verify.__main__ import main as verify

pytestmark = [pytest.mark.slow, built]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source"))


def test_stock_readers_are_not_disturbed(source: Path, tmp_path: Path) -> None:
    assert convert(source, tmp_path / "mds", "--seekable", "--shard-mb", 0.01) == 0
    for split in ("train", "val"):
        found = images_of(tmp_path / "mds", split)
        assert sorted(found) == sorted(originals_of(source, split))
        stock = StreamingDataset(local=str(tmp_path / "mds"), split=split, batch_size=1)
        samples = [stock[index] for index in range(len(stock))]
        assert [set(sample) for sample in samples] == [{"i", "seek", "x", "y"}] * len(found)
        assert [(sample["seek"], sample["y"]) for sample in samples] == [
            (native.seek_table(image) or b"", label) for image, label in found
        ]
        imagenet = StreamingImageNet(local=str(tmp_path / "mds"), split=split, batch_size=1)
        assert [imagenet[index][1] for index in range(len(stock))] == [label for _, label in found]


def test_shards_equal_the_published_writers(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / "folder" / "val" / f"class{number % 2}" / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(PHOTO[40 * number :], quality=70 + number))
    paths = sorted((tmp_path / "folder" / "val").glob("*/*"))
    columns = {"x": "jpeg", "y": "int", "i": "int", "seek": "bytes"}
    with MDSWriter(out=str(tmp_path / "stock" / "val"), columns=columns, hashes=["sha1"], size_limit=2**26) as writer:
        for number, path in enumerate(paths):
            table = native.seek_table(path.read_bytes(), 8)
            with Image.open(path) as image:
                writer.write({"i": number, "x": image, "y": int(path.parent.name[-1]), "seek": table})
    assert convert(tmp_path / "folder", tmp_path / "ours", "--seekable", 8, workers=1) == 0
    (tmp_path / "ours" / "classes.json").unlink()
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock")


def test_converting_on(source: Path, tmp_path: Path) -> None:
    """Tables are made from shards too, and again for changed images; without --seekable they are left out."""
    assert convert(source, tmp_path / "plain", workers=1) == 0
    assert convert(tmp_path / "plain", tmp_path / "seekable", "--seekable", 4, "--max-size", 64, workers=1) == 0
    assert convert(tmp_path / "seekable", tmp_path / "again", workers=1) == 0
    data = ShardDataset(str(tmp_path / "seekable"), str(tmp_path / "seekable"), "val", PIPELINE, 0)
    stored = [data.borrow(index)[0] for index in range(len(data))]
    tables = [bytes(image.table) for image in stored]
    assert (
        tables == [native.seek_table(bytes(image.data), 4) or b"" for image in stored] and sum(map(bool, tables)) > 20
    )
    assert "seek" not in json.loads((tmp_path / "again/val/index.json").read_text())["shards"][0]["column_names"]


def test_verify_makes_the_tables_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A table of another image, a missing and a damaged one are faults, each with its sample's name."""
    images = [jpeg(PHOTO[20 * n : 20 * n + 200], quality=70 + n) for n in range(5)]
    tables = [native.seek_table(image, 8 * (n % 2)) for n, image in enumerate(images)]
    changed = [tables[0], tables[2], b"", tables[3][:-1], tables[4]]
    for name, column in (("right", tables), ("wrong", changed)):
        for split in ("train", "val"):
            columns = {"seek": "bytes", "x": "bytes", "y": "int"}
            with MDSWriter(out=str(tmp_path / name / split), columns=columns, hashes=["sha1"]) as writer:
                for number, (image, table) in enumerate(zip(images, column, strict=True)):
                    own = image[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(split)) + split.encode() + image[2:]
                    kept = native.seek_table(own, 8 * (number % 2)) if table == tables[number] else table
                    writer.write({"seek": kept, "x": own, "y": number % 2})
    assert verify([str(tmp_path / "right"), "--workers=1"]) == 0
    capsys.readouterr()
    assert verify([str(tmp_path / "wrong"), "--workers=1"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "6 faults" in said and said.count("another image's, or damaged. Convert the data set again.") == 4
    for split in ("train", "val"):
        assert f"wrong/{split}/shard.00000.mds, sample 2: has no seek table." in said


@pytest.mark.parametrize(
    "words, said",
    [
        (["--seekable", "-1"], "argument --seekable: -1: N must be from 0 to 65535; write SRC DST --seekable N"),
        (["--seekable", "65536"], "N must be from 0 to 65535"),
        (["--seekable=often"], "often: N must be from 0 to 65535"),
        (["--seekable", "--to", "ffcv"], "only MDS shards hold seek tables; leave it out, or leave out --to ffcv."),
    ],
)
def test_bad_options(words: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    try:
        assert convert(tmp_path, tmp_path / "out", *words) == 2
    except SystemExit as error:
        assert error.code == 2
    assert said in " ".join(capfd.readouterr().err.split())
