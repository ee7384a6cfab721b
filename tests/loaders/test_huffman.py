"""Our Huffman decoder gives libjpeg-turbo's results: the same pixels, and on damage the same failures."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config import load
from config.run import Machine
from loaders.images import decoders, native
from loaders.images.native import View, whole
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from tests.loaders.jpegs import PHOTO, Encode, built, by_pil, compile_c, jpeg
from tests.runs import ROOT
from training.record import environment

FLAGS = ["-O1", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-pthread", "-shared"]
NOISE = np.random.default_rng(0).integers(0, 256, PHOTO.shape, np.uint8)


def equal_to_libjpegs(data: bytes, view: View) -> np.ndarray | None:
    """Return the view, or None, after comparing it with libjpeg-turbo's, and with those by seek tables."""
    found, expected = native.view_jpeg(data, view), native.view_jpeg(data, view._replace(libjpeg=True))
    assert (found is None) == (expected is None) and (found is None or np.array_equal(found, expected))
    for table in filter(None, (native.seek_table(data, every) for every in (0, 1, 3))):
        sought = native.view_jpeg(data, view, table)
        assert sought is not None and np.array_equal(sought, found), "a JPEG with a table is intact"
    return found


@built
def test_our_decoder_is_in_use() -> None:
    assert native.huffman_decoder() in ("own", "own, BMI2")
    assert decoders.described("native") == "decoder: native"


@built
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_box_equals_libjpegs_and_pils(data: st.DataObject) -> None:
    """Photographs, noise and plain color; tests/loaders/test_native.py has the subsamplings that PIL cannot write."""
    height, width = data.draw(st.tuples(st.integers(1, 200), st.integers(1, 400)))
    source = data.draw(st.sampled_from([PHOTO, NOISE, np.full_like(PHOTO, 77)]))
    pixels = source[:height, :width, 1] if data.draw(st.integers(0, 4)) == 0 else source[:height, :width]
    encoded = jpeg(
        pixels,
        quality=data.draw(st.integers(1, 100)),
        subsampling=data.draw(st.integers(0, 2)),
        optimize=source is not NOISE and data.draw(st.booleans()),  # PIL's buffer would be too small
        **data.draw(st.sampled_from([{}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}])),
    )
    for _ in range(4):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        tall, wide = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
        view = View(top, left, tall, wide, 20, 30, 0, 0, 20, 30)
        assert np.array_equal(equal_to_libjpegs(encoded, view), by_pil(encoded, view))
    everything = whole(height, width, height, width)
    assert np.array_equal(equal_to_libjpegs(encoded, everything), by_pil(encoded, everything))


@built
@pytest.mark.parametrize("across, down", [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (1, 4), (4, 2)])
def test_every_subsampling_equals_libjpegs(encode: Encode, across: int, down: int) -> None:
    rng = random.Random(across + 10 * down)
    for _ in range(40):
        height, width = rng.randint(1, 300), rng.randint(1, 400)
        options = {"optimized": rng.randint(0, 1), "restart_rows": rng.randint(0, 2), "quality": rng.randint(1, 100)}
        encoded = encode(rng.choice([PHOTO, NOISE])[:height, :width], across=across, down=down, **options)
        top, left = rng.randrange(height), rng.randrange(width)
        size = (rng.randint(1, height - top), rng.randint(1, width - left))
        for scaled in (False, True):
            view = View(top, left, *size, 9, 11, 0, 0, 9, 11, scaled=scaled)
            assert equal_to_libjpegs(encoded, view) is not None


@pytest.fixture(scope="module")
def with_own_codes() -> list[bytes]:
    """JPEGs of four Huffman codes each, which no other has: more than the cache holds."""
    sizes = [(40 + 9 * n, 300 - 10 * n) for n in range(20)]
    files = [jpeg(PHOTO[n:h, n:w], quality=10 + 4 * n, optimize=True) for n, (h, w) in enumerate(sizes)]
    codes = {code for data in files for code in re.findall(rb"\xff\xc4.{19,}?(?=\xff[\xc4\xda])", data, re.DOTALL)}
    assert len(codes) > 64
    return files


@built
def test_more_codes_than_the_cache_holds(with_own_codes: list[bytes]) -> None:
    """In every order, together with the standard's codes, and in several threads."""
    view, rng = View(3, 20, 30, 70, 20, 20, 0, 0, 20, 20), random.Random(0)
    files = [*with_own_codes, jpeg(PHOTO[:90, :120])]
    expected = {data: by_pil(data, view) for data in files}
    order = [rng.choice(files) for _ in range(400)]
    with ThreadPoolExecutor(8) as pool:
        for found in (map(native.view_jpeg, order, [view] * 400), pool.map(native.view_jpeg, order, [view] * 400)):
            for data, pixels in zip(order, found, strict=True):
                assert np.array_equal(pixels, expected[data])
    out = np.zeros((400, 20, 20, 3), np.uint8)
    assert native.Batch(order).view(np.array([view] * 400, np.int32), out, threads=4).all()
    assert np.array_equal(out, np.stack([expected[data] for data in order]))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Change, insert, remove or swap bytes, mostly of the scan; the end marker stays."""
    changed, begin = bytearray(data[:-2]), data.index(b"\xff\xda") + 14
    for _ in range(rng.choice([1, 1, 1, 2, 10])):
        at = rng.randrange(begin, len(changed)) if rng.random() < 0.8 else rng.randrange(150, begin)
        kind = rng.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            del changed[at : at + rng.randint(1, 30)]
        elif kind == 3:
            changed[at:at] = bytes((0xFF, rng.choice([0, 0xD0, 0xD1, 0xD7, 0xD9, 0xC4, 0xFF])))
        elif kind == 4:
            del changed[at:]
        elif (marker := changed.find(b"\xff\xd1", at)) >= 0:
            changed[marker + 1] = 0xD2
        if len(changed) <= begin:
            break
    return bytes(changed) + b"\xff\xd9"


@built
def test_damage_has_the_same_result_as_with_libjpegs() -> None:
    rng = random.Random(0)
    intact = [
        jpeg(source[:height, :width], quality=quality, subsampling=quality % 3, optimize=quality % 2, **restarts)
        for source in (PHOTO, NOISE)
        for height, width in ((30, 40), (70, 150))
        for quality, restarts in ((30, {}), (50, {"restart_marker_rows": 1}), (91, {"restart_marker_blocks": 2}))
    ]
    results = []
    for _ in range(3000):
        data = damaged(rng, rng.choice(intact))
        height, width = native.jpeg_shape(data) or (0, 0)
        if 0 < height <= 100 and 0 < width <= 200:
            top, left = rng.randrange(height), rng.randrange(width // 2 + 1)
            view = View(top, left, height - top, max(1, width - left - width // 3), 12, 13, 0, 0, 12, 13)
            results.append(equal_to_libjpegs(data, view) is not None)
    assert sum(results) > 300 and results.count(False) > 300


def with_code(rng: random.Random) -> bytes:
    """Return a gray JPEG of 24 x 152 pixels whose AC code is 0, 10, 110, ... for random symbols.

    Its scan is noise, which decodes to an image more often than not.
    """
    standard = jpeg(NOISE[:24, :152, 0])
    start, scan = standard.index(b"\xff\xc4\0\xb5"), standard.index(b"\xff\xda")
    symbols = [rng.choice((0, 0x01, 0x02, 0x0A, 0x0F, 0x13, 0x3F, 0xF0, 0xF1, rng.randrange(256))) for _ in range(14)]
    symbols[rng.randrange(2)] = 0  # or most blocks would exceed 64 coefficients
    code = b"\xff\xc4\0\x21\x10" + bytes([1] * 14 + [0, 0] + symbols)
    noise = bytes(rng.randrange(255) & rng.randrange(256) for _ in range(6000))
    return standard[:start] + code + standard[scan : scan + 10] + noise + b"\xff\xd9"


@built
def test_unusual_codes_have_the_same_result_as_with_libjpegs() -> None:
    """Short codes for long runs and large values, which no encoder writes."""
    rng, view = random.Random(0), View(9, 80, 15, 64, 9, 9, 0, 0, 9, 9)
    done = [equal_to_libjpegs(with_code(rng), view) is not None for _ in range(200)]
    assert done.count(True) > 50


@built
@pytest.mark.parametrize(
    "old, new, accepted",
    [
        (b"\xff\xd1", b"\xff\xd2", False),  # out of order
        (b"\xff\xd1", b"", False),
        (b"\xff\xd1", b"\xff\xd1\xff\xd2", False),
        (b"\xff\xd1", b"\xff\xd9", False),
        (b"\xff\xd1", b"\0\0\xff\xd1", None),  # unused bytes, which libjpeg-turbo may not notice
        (b"\xff\xd1", b"\xff\xff\xff\xd1", True),  # fill bytes, which the format allows
        (b"\xff\xd0", b"\xff\0\xff\xd0", False),
    ],
)
def test_restart_markers(old: bytes, new: bytes, accepted: bool | None) -> None:
    data = jpeg(PHOTO[:64, :80], restart_marker_rows=1)
    scan = data.index(b"\xff\xda")
    changed = data[:scan] + data[scan:].replace(old, new, 1)
    view = View(20, 10, 44, 60, 20, 20, 0, 0, 20, 20)
    assert changed != data
    assert (equal_to_libjpegs(changed, view) is not None) == accepted or accepted is None
    if accepted:
        assert np.array_equal(native.view_jpeg(changed, view), by_pil(changed, view))


@built
def test_libjpegs_decoder_can_be_selected() -> None:
    data = jpeg(PHOTO)
    for make in (lambda name: TrainingPipeline(-1, 64, decoder=name), lambda name: EvaluationPipeline(80, 64, name)):
        pipelines = [make("native"), make("native_libjpeg")]
        assert [pipeline.plan(427, 640, 64).libjpeg for pipeline in pipelines] == [False, True]
        found = []
        for pipeline in pipelines:
            torch.manual_seed(0)
            found.append(pipeline(data))
        assert torch.equal(*found)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The library with a Huffman decoder that swaps two coefficients."""
    for path in native.LIBRARY.parent.glob("*.[ch]"):
        shutil.copy(path, tmp_path)
    header = tmp_path / "huffman.h"
    right, wrong = "{\n    0,  1,  8,", "{\n    0,  8,  1,"
    assert right in header.read_text()
    header.write_text(header.read_text().replace(right, wrong))
    monkeypatch.setattr(native, "LIBRARY", compile_c(tmp_path / "decode.c", tmp_path / "decode.so", *FLAGS))
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_failed_self_test_switches_to_libjpegs_decoder() -> None:
    """The run says so once per decoder, and records it."""
    view = View(3, 4, 100, 200, 50, 50, 0, 0, 50, 50)
    assert native.huffman_decoder() == "libjpeg-turbo"
    assert np.array_equal(native.view_jpeg(jpeg(PHOTO), view), by_pil(jpeg(PHOTO), view))
    assert native.seek_table(jpeg(PHOTO)) is None
    said = "decoder: native. Our Huffman decoder failed its self-test and is off."
    assert decoders.described("native") == said
    assert decoders.described("pil") == "decoder: pil"
    run = load([str(ROOT / "yamls/digits.yaml")])
    run.prepared = Machine("cpu", "fp32", 8)
    assert environment(run)["huffman_decoder"] == "libjpeg-turbo"


def test_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    native._library.cache_clear()
    assert native.huffman_decoder() is None
    native._library.cache_clear()
