"""Seek tables change no pixel: those of a JPEG are used, all others ignored. test_huffman.py has the kinds of JPEG."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data import build_imagenet_dataspec
from loaders.images import native
from loaders.images.native import Encoded, View
from loaders.images.opened import OpenedByNative
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from loaders.storage.streaming import ShardDataset
from tests.image_files import make_imagefolder
from tests.loaders.jpegs import PHOTO, Encode, built, by_pil, jpeg, odd_images
from tests.tools.conversions import convert

pytestmark = built

HEADER = struct.Struct("=BBHI")  # version, components, columns between entries, entries
ENTRY = struct.Struct("=I3h")  # bit of the scan, DC coefficients
BOX = View(100, 250, 120, 200, 60, 70, 0, 0, 60, 70)
LOWER_RIGHT = View(9, 300, 418, 340, 60, 70, 0, 0, 60, 70)  # all rows of MCUs
_SECRET = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
_WORD = 2**64 - 1


def checksum(data: bytes, seed: int) -> int:
    """The checksum of seek_table.h, written independently."""

    def product(a: int, b: int) -> int:
        return (a * b & _WORD) ^ (a * b >> 64)

    value = product(seed ^ _SECRET[0], len(data) ^ _SECRET[1])
    lanes = [(value + lane) & _WORD for lane in range(4)]
    data += bytes(64 - len(data) % 64)
    for step in struct.iter_unpack("=8Q", data):
        lanes = [product(step[2 * n] ^ _SECRET[0], step[2 * n + 1] ^ lane) for n, lane in enumerate(lanes)]
    for lane in lanes:
        value = product(value ^ _SECRET[1], lane ^ _SECRET[0])
    return value


def signed(table: bytes, data: bytes) -> bytes:
    """Append the checksum that ties a table to its JPEG."""
    return table + struct.pack("=Q", checksum(table, checksum(data, 0)))


def entries_of(table: bytes) -> list[tuple[int, ...]]:
    return list(ENTRY.iter_unpack(table[HEADER.size : -8]))


def table_of(entries: list[tuple[int, ...]], header: tuple[int, ...], data: bytes) -> bytes:
    return signed(HEADER.pack(*header) + b"".join(ENTRY.pack(*entry) for entry in entries), data)


@pytest.mark.parametrize("every, per_row", [(0, 1), (1, 40), (7, 6), (8, 5), (39, 2), (40, 1), (41, 1), (65_535, 1)])
def test_layout(every: int, per_row: int) -> None:
    """427 x 640 pixels, 4:2:0: 27 rows of 40 MCUs."""
    data = jpeg(PHOTO)
    table = native.seek_table(data, every)
    header = HEADER.unpack(table[: HEADER.size])
    assert header == (1, 3, every if 0 < every < 40 else 40, 27 * per_row)
    assert len(table) == HEADER.size + 27 * per_row * ENTRY.size + 8
    entries = entries_of(table)
    assert entries[0] == (0, 0, 0, 0) and entries == sorted(entries, key=lambda entry: entry[0])
    assert table_of(entries, header, data) == table == native.seek_table(data, every)


def test_a_table_is_used() -> None:
    """A forged one, with the right checksum, changes the pixels."""
    data = jpeg(PHOTO)
    table = native.seek_table(data)
    header = HEADER.unpack(table[: HEADER.size])
    brighter = [(bit, y + 20, cb, cr) for bit, y, cb, cr in entries_of(table)]
    found, expected = native.view_jpeg(data, BOX, table_of(brighter, header, data)), native.view_jpeg(data, BOX)
    assert float(found.mean()) > float(expected.mean()) + 10


def forged(data: bytes) -> Iterator[bytes]:
    """Yield tables with the right checksum that cannot be of any JPEG, or not of this one."""
    table = native.seek_table(data)
    header, entries = HEADER.unpack(table[: HEADER.size]), entries_of(table)
    scan = len(data) - data.index(b"\xff\xda") - 14
    yield table_of([entries[0], entries[2], entries[1], *entries[3:]], header, data)  # not monotonic
    yield table_of([*entries[:-1], (8 * scan, 0, 0, 0)], header, data)  # past the end
    yield table_of([*entries[:-1], (2**32 - 1, 0, 0, 0)], header, data)
    for position, value in ((0, 2), (1, 1), (1, 4), (2, 0), (2, 39), (2, 41), (3, 0), (3, 26), (3, 28), (3, 2**32 - 1)):
        changed = [*header]
        changed[position] = value
        yield table_of(entries, tuple(changed), data)
    yield table_of(entries[:-1], header, data)
    yield table_of([*entries, entries[-1]], header, data)
    yield table_of([], header, data)
    yield signed(b"", data)


def others(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield tables of other JPEGs, and damaged ones."""
    table = native.seek_table(data)
    yield from (native.seek_table(jpeg(pixels)) for pixels in (PHOTO[::-1], PHOTO[:, ::-1], PHOTO[:100]))
    yield from (table[:size] for size in range(len(table)))
    yield from (table + bytes(extra) for extra in (1, 8, 10, 1000))
    yield from (rng.randbytes(rng.randrange(500)) for _ in range(50))
    for place in range(len(table)):
        yield table[:place] + bytes([table[place] ^ 1 << rng.randrange(8)]) + table[place + 1 :]


def test_other_tables_are_ignored() -> None:
    data = jpeg(PHOTO)
    tables = [*forged(data), *others(data, random.Random(0))]
    for view in (BOX, LOWER_RIGHT):
        expected = by_pil(data, view)
        for table in tables:
            assert np.array_equal(native.view_jpeg(data, view, table), expected)
        out = np.zeros((len(tables), 60, 70, 3), np.uint8)
        views = np.array([view] * len(tables), np.int32)
        assert native.Batch([Encoded(data, table) for table in tables]).view(views, out, 2).all()
        assert (out == expected).all()


def test_a_table_of_other_bytes_is_ignored() -> None:
    """Every byte of the JPEG counts, also those that differ in one bit only, as after an edit of its metadata."""
    data, rng = jpeg(PHOTO[:64, :400]), random.Random(0)
    table, view = native.seek_table(data), View(30, 60, 34, 300, 30, 70, 0, 0, 30, 70)
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.randrange(20, len(data) - 2)] ^= 1 << rng.randrange(8)
        found, expected = native.view_jpeg(bytes(changed), view, table), native.view_jpeg(bytes(changed), view)
        assert (found is None) == (expected is None) and (found is None or np.array_equal(found, expected))


def test_tables_of_gray_and_of_16_bit_quantization(encode: Encode) -> None:
    gray = jpeg(PHOTO[..., 1])
    assert HEADER.unpack(native.seek_table(gray)[: HEADER.size]) == (1, 1, 80, 54)
    coarse = jpeg(PHOTO, qtables=[[300 + n for n in range(64)]] * 2)
    assert b"\xff\xdb\x00\x83\x10" in coarse, "16 bits per value"
    for data in (gray, coarse, encode(PHOTO, across=4, down=1, restart_rows=3, optimized=1)):
        for table in (native.seek_table(data), native.seek_table(data, 5)):
            assert np.array_equal(native.view_jpeg(data, BOX, table), by_pil(data, BOX))


def test_jpegs_without_tables() -> None:
    whole = jpeg(PHOTO)
    scan = whole.index(b"\xff\xda")
    for data in (
        jpeg(PHOTO, progressive=True),
        odd_images()["CMYK.jpeg"],
        odd_images()["L.png"],
        whole[:-100],
        whole[: scan + 2000] + b"\xff\xd9",
        whole[: scan + 2000] + b"\xff\xd0" + whole[scan + 2000 :],
        b"",
    ):
        assert native.seek_table(data) is None


def test_dc_coefficients_beyond_16_bits() -> None:
    """Such a JPEG, which no encoder writes, has no table. Each of its 40 blocks adds 2047 to the DC coefficient."""
    codes = [bytes([0xFF, 0xC4, 0, 20, kind, 1, *[0] * 15, symbol]) for kind, symbol in ((0x00, 11), (0x10, 0))]
    for blocks, has_table in ((16, True), (40, False)):
        bits = ("0" + 11 * "1" + "0") * blocks
        scan = int(bits.ljust(-len(bits) // 8 * -8, "1"), 2).to_bytes(-(-len(bits) // 8), "big")
        standard = jpeg(np.zeros((8, 8 * blocks), np.uint8))
        start, end = standard.index(b"\xff\xc4"), standard.index(b"\xff\xda")
        data = (
            standard[:start]
            + b"".join(codes)
            + standard[end : end + 10]
            + scan.replace(b"\xff", b"\xff\0")
            + b"\xff\xd9"
        )
        view = View(0, 60, 8, 8 * blocks - 60, 8, 9, 0, 0, 8, 9)
        table = native.seek_table(data, 1)
        assert (table is not None) == has_table
        expected = native.view_jpeg(data, view._replace(libjpeg=True))
        assert expected is not None and np.array_equal(native.view_jpeg(data, view, table or b""), expected)


@pytest.mark.parametrize("libjpeg, scaled", [(True, False), (False, True), (True, True)])
def test_with_the_other_choices(libjpeg: bool, scaled: bool) -> None:
    large = np.tile(PHOTO, (2, 2, 1))
    data, view = jpeg(large), View(90, 500, 600, 700, 50, 60, 0, 0, 50, 60, libjpeg=libjpeg, scaled=scaled)
    assert np.array_equal(native.view_jpeg(data, view, native.seek_table(data)), native.view_jpeg(data, view))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same odd and ordinary images as shards, without and with seek tables."""
    root = make_imagefolder(tmp_path_factory.mktemp("images"), per_class=4, size=90)
    for split in ("train", "val"):
        for number in range(6):
            path = root / split / "cat" / f"photo{number}.JPEG"
            path.write_bytes(jpeg(PHOTO[30 * number :, 40 * number :], quality=80 + number, progressive=number == 3))
    without, tables = (tmp_path_factory.mktemp(name) for name in ("without", "tables"))
    assert convert(root, without / "mds", workers=1) == convert(root, tables / "mds", "--seekable", 8, workers=1) == 0
    return without / "mds", tables / "mds"


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [TrainingPipeline(-1, 48), EvaluationPipeline(64, 48)])
def test_shards_with_tables_give_the_same_batches(
    pipeline: TrainingPipeline | EvaluationPipeline, stored: tuple[Path, Path]
) -> None:
    without, tables = (ShardDataset(str(root), str(root), "train", pipeline, seed=3) for root in stored)
    keys = [(epoch, index) for epoch in range(3) for index in range(len(without))]
    sources = [tables.borrow(index)[0] for index in range(len(tables))]
    assert sum(len(source.table) == 0 for source in sources) == 1, "only the progressive JPEG has none"
    assert all(
        bytes(source.table) == native.seek_table(bytes(source.data), 8) for source in sources if len(source.table)
    )
    found, expected = tables.__getitems__(keys), without.__getitems__(keys)
    assert torch.equal(found.images, expected.images)
    assert [label for _, label in found] == [label for _, label in expected]
    for n in range(len(keys)):
        assert torch.equal(tables[keys[n]][0], expected[n][0])


@pytest.mark.slow
def test_a_loader_with_workers(stored: tuple[Path, Path]) -> None:
    batches = []
    for root in stored:
        options = {"local": str(root), "crop_size": 40, "num_workers": 2, "decoder": "native"}
        spec = build_imagenet_dataspec(str(root), True, 6, **options)
        batches.append([images for images, _ in spec.dataloader])
    assert len(batches[0]) == len(batches[1]) > 2
    assert all(torch.equal(found, expected) for found, expected in zip(*batches, strict=True))


def test_one_image_at_a_time() -> None:
    data = jpeg(PHOTO)
    opened = OpenedByNative(Encoded(np.frombuffer(data, np.uint8), np.frombuffer(native.seek_table(data), np.uint8)))
    assert (opened.height, opened.width, len(opened.table)) == (427, 640, 286)
    assert np.array_equal(opened.view(BOX).permute(1, 2, 0).numpy(), by_pil(data, BOX))
    png = OpenedByNative(Encoded(jpeg(PHOTO, progressive=True), b"nonsense"))
    assert (png.height, png.width) == (427, 640)


@pytest.mark.slow
def test_without_our_huffman_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "huffman_decoder", lambda: "libjpeg-turbo")
    assert "failed its self-test" in native.no_seek_tables()
    root = make_imagefolder(tmp_path / "images", per_class=2)
    assert convert(root, tmp_path / "mds", "--seekable", workers=1) == 1
    assert not (tmp_path / "mds").exists()
    monkeypatch.setattr(native, "available", lambda: False)
    assert native.HOW_TO_BUILD in native.no_seek_tables() and native.seek_table_fault(b"", b"x") is None
