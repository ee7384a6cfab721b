"""An index.json is not trusted: it can name no file elsewhere and allocate no more memory than its data."""

import bz2
import copy
import gzip
import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
import snappy
import zstd

from common.errors import DataError
from loaders.storage.inspection import inspect
from loaders.storage.inspection_splits import open_splits
from loaders.storage.shard_index import parse_index
from loaders.transport.decompression import decompressed
from loaders.transport.preload import copy as preload
from tests.image_files import make_mds
from tests.loaders.test_streaming import build, everything
from tools.convert.sources import open_sources

Change = Callable[[dict[str, Any]], Any]

NAMES = [
    *("../../../precious.txt", "/etc/passwd", "..", ".", "", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0b", "a\nb"),
    *(
        "C:/a",
        "c:a",
        "index.json",
        "Index.JSON",
        "index.json/a",
        "index.json.tmp",
        "classes.json",
        ".preload/a",
        "a.part",
    ),
    *("\ud800", "a" * 201, " a", "shard.00001.mds", "SHARD.00001.mds", "shard.00001.mds/a", 7, None, ["a"], {"a": 1}),
]


def rewrite(root: Path, change: Change, split: str = "val") -> Path:
    """Change a split's index.json, and return the folder."""
    path = root / split / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    return root


def refused(root: Path, change: Change) -> str:
    """Return the error for a changed index, without changing the file."""
    index = copy.deepcopy(json.loads((root / "val/index.json").read_text()))
    change(index)
    with pytest.raises(DataError, match=r"^PLACE: [^\n]* Convert the data set again\.$") as error:
        parse_index(json.dumps(index).encode(), "PLACE")
    return str(error.value)


@pytest.mark.parametrize("kind", ["raw_data", "zip_data"])
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_of_files_stay_in_their_folder(name: object, kind: str, compressed: Path) -> None:
    if "SHARD" in str(name).upper() and kind == "zip_data":
        assert "names" in refused(compressed, lambda index: index["shards"][0][kind].update(basename=name))
    else:
        refused(compressed, lambda index: index["shards"][0][kind].update(basename=name))


def test_no_reader_touches_files_outside_the_folder(shards: Path, tmp_path: Path) -> None:
    remote, home = shutil.copytree(shards, tmp_path / "remote"), tmp_path / "home"
    rewrite(remote, lambda index: index["shards"][0]["raw_data"].update(basename="../../../precious.txt"))
    cache = home / "cache/mds"
    cache.mkdir(parents=True)
    (home / "precious.txt").write_text("mine\n")
    said = rf"^{remote}/val/index\.json: names the file '\.\./\.\./\.\./precious\.txt'; "
    readers: list[Callable[[], object]] = [
        lambda: build(remote, cache),
        lambda: preload(str(remote), str(cache), ["val"]),
        lambda: open_sources(str(remote), None),
        lambda: next(iter([DataError(text) for text in open_splits(str(remote), None)[1]])),
        lambda: next(iter(inspect(str(remote), str(cache))[1])),
    ]
    for read in readers:
        try:
            found = str(read())
        except DataError as error:
            found = str(error)
        assert re.match(said, found)
        assert (home / "precious.txt").read_text() == "mine\n" and sorted(os.listdir(home)) == ["cache", "precious.txt"]


def merged(folder: Path, root: Path, **options: Any) -> Path:
    """Write both splits in two subfolders each, with one index over both, like streaming's merge_index."""
    for split in ("train", "val"):
        shards: list[dict[str, Any]] = []
        for part in ("0", "1"):
            make_mds(folder / split, root / split / part, size_limit=16_000, **options)
            index = root / split / part / "index.json"
            for shard in json.loads(index.read_text())["shards"]:
                for info in filter(None, (shard["raw_data"], shard["zip_data"])):
                    info["basename"] = f"{part}/{info['basename']}"
                shards.append(shard)
            index.unlink()
        (root / split / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    return root


@pytest.mark.parametrize("compression", [None, "zstd:3"])
def test_merged_index(compression: str | None, folder: Path, tmp_path: Path) -> None:
    root = merged(folder, tmp_path / "set", compression=compression)
    assert inspect(str(root), str(root))[1] == []
    assert len(everything(build(root, tmp_path / "cache"))[1]) == 120
    preload(str(root), str(tmp_path / "copy"), ["val"])
    name = next((root / "val/1").glob("shard.00000*"))
    name.write_bytes(name.read_bytes()[:-1])
    assert "is damaged" in inspect(str(root), str(root))[1][0]
    with pytest.raises(DataError, match=r"val/1/shard.00000.mds\S*: is damaged"):
        preload(str(root), str(tmp_path / "second"), ["val"])


def test_links_do_not_lead_out_of_the_cache(folder: Path, tmp_path: Path) -> None:
    root, outside = merged(folder, tmp_path / "set"), tmp_path / "outside"
    outside.mkdir()
    preload(str(root), str(tmp_path / "copy"), ["val"])
    shutil.rmtree(tmp_path / "copy/val/0")
    (tmp_path / "cache/val").mkdir(parents=True)
    for local in (tmp_path / "cache", tmp_path / "copy"):
        (local / "val/0").symlink_to(outside)
    with pytest.raises(DataError, match=r"val/0/shard\.\d+\.mds: lies outside of .*cache/val, by a link"):
        build(root, tmp_path / "cache")
    with pytest.raises(DataError, match=r"copy/val/0: links to a folder outside .*copy/val;"):
        preload(str(root), str(tmp_path / "copy"), ["val"])
    assert not list(outside.iterdir())
    shutil.move(root / "val/0", outside / "0")
    (root / "val/0").symlink_to(outside / "0")  # shards read in place may be on several disks
    assert len(build(root, root).dataloader.dataset) == 120


def test_a_manifest_names_only_files_of_the_copy(folder: Path, tmp_path: Path) -> None:
    source, copied = shutil.copytree(folder, tmp_path / "source"), tmp_path / "copy"
    preload(str(source), str(copied))
    (tmp_path / "precious.txt").write_text("mine\n")
    manifest = copied / ".preload/manifest.json"
    record = json.loads(manifest.read_text())
    record["files"]["../precious.txt"] = [5, "", ""]
    manifest.write_text(json.dumps(record))
    (source / "val/cat/0000.jpeg").unlink()
    with pytest.raises(DataError, match=r"precious\.txt' is not a valid file name"):
        preload(str(source), str(copied))
    assert (tmp_path / "precious.txt").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda index: index["shards"][0].update(samples=10**8), "100000000 samples take"),
        (lambda index: index["shards"][0].update(samples=10**12), "samples take"),
        (
            lambda index: (big := index["shards"][0]).update(
                samples=10**8, raw_data=big["raw_data"] | {"bytes": 2**32}
            ),
            "2^32",
        ),
        (lambda index: index["shards"][0].update(samples=-1), "malformed"),
        (lambda index: index["shards"][0].update(samples=1.5), "malformed"),
        (lambda index: index["shards"][0].update(samples=True), "malformed"),
        (lambda index: index["shards"][0]["raw_data"].update(bytes="9"), "malformed"),
        (lambda index: index["shards"][0]["raw_data"].update(hashes=["sha1"]), "malformed"),
        (lambda index: index["shards"][0].update(raw_data=None), "malformed"),
        (lambda index: index["shards"][0].pop("zip_data"), "malformed"),
        (lambda index: index["shards"][0].update(column_sizes=[8, None]), "malformed"),
        (lambda index: index["shards"][0].update(column_names=["i", "x", "x"]), "malformed"),
        (
            lambda index: index["shards"][0].update(column_sizes=[8, None, 4]),
            "column y, encoded as int, cannot have 4",
        ),
        (
            lambda index: index["shards"][1].update(column_names=["i", "image", "label"]),
            "has the columns i, image, label",
        ),
        (lambda index: index["shards"][0].update(compression="rar"), "malformed"),
        (lambda index: index["shards"][0].update(format="json"), "not mds 2"),
        (lambda index: index.update(shards={"0": 1}), "malformed"),
        (lambda index: index["shards"].insert(0, "shard"), "malformed"),
    ],
)
def test_inconsistent_numbers_and_columns(change: Change, said: str, compressed: Path) -> None:
    assert said in refused(compressed, change)


@pytest.mark.parametrize(
    ("kind", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2:9", bz2.compress),
        ("br", brotli.compress),
        ("zstd:7", zstd.compress),
        ("zstd", lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:])),
        ("snappy", snappy.compress),
    ],
)
def test_decompression_is_limited_to_the_indexed_size(kind: str, compress: Callable[[bytes], bytes]) -> None:
    stored = compress(b"shard" * 100)
    assert decompressed(kind, stored, 500) == b"shard" * 100
    for data, size in ((stored, 501), (stored, 499), (stored[:-5], 500), (b"", 500), (b"nonsense", 500)):
        with pytest.raises(ValueError):
            decompressed(kind, data, size)
    bomb = compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decompressed(kind, bomb, 17_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
