"""Damaged JPEGs: the native decoder gives PIL's pixels or none, and never accesses memory out of bounds."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from loaders.images import native, opened
from loaders.images.native import View
from tests.loaders.jpegs import PHOTO, Encode, built, by_pil, compile_c, jpeg, outcome


@built
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_truncated_jpegs_are_rejected(cut: float) -> None:
    """Whether or not the box is in the part that remains."""
    for progressive in (False, True):
        whole = jpeg(PHOTO, progressive=progressive)
        damaged = whole[: int(len(whole) * cut)]
        top = View(0, 0, 16, 16, 16, 16, 0, 0, 16, 16)
        with pytest.raises(OSError, match="truncated"):
            opened.OpenedByNative(damaged).view(top)
        assert outcome("native", damaged) == outcome("pil", damaged)


@built
def test_damage_is_never_decoded_as_gray() -> None:
    """A scan that ends early or has a marker inside is left to PIL, like anything libjpeg-turbo warns of."""
    whole = jpeg(PHOTO[:200, :200])
    start = whole.index(b"\xff\xda") + 200
    view = View(100, 100, 100, 100, 50, 50, 0, 0, 50, 50)
    assert native.view_jpeg(whole, view) is not None
    for marker in (b"\xff\xd9", b"\xff\xd0", b"\xff\xc4"):
        damaged = whole[:start] + marker + whole[start + 2 :]
        assert native.view_jpeg(damaged, view) is None
        assert outcome("native", damaged) == outcome("pil", damaged)


def mutated(encode: Encode) -> list[bytes]:
    """Return intact JPEGs, then hundreds with bytes changed or removed, or with a wrong size."""
    rng = random.Random(0)
    whole = [
        encode(PHOTO[:height, :width], across=across, down=down, progressive=progressive, restart_rows=progressive ^ 1)
        for height, width in ((1, 1), (17, 70), (90, 131))
        for across, down in ((1, 1), (2, 2), (1, 2), (4, 1))
        for progressive in (0, 1)
    ]
    found = list(whole)
    for _ in range(600):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(700, len(data)))] = (
                rng.randrange(256)
            )
        if rng.random() < 0.2:
            begin = rng.randrange(len(data))
            del data[begin : begin + rng.randrange(50)]
        if rng.random() < 0.1:
            frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
            data[frame + 5 : frame + 9] = struct.pack(">HH", *rng.choice([(65_500, 65_500), (65_500, 9), (9, 65_500)]))
        found.append(bytes(data[:-2]) + b"\xff\xd9")
    return found


@built
def test_damaged_images_equal_pils_or_are_left_to_it(encode: Encode) -> None:
    """The whole image is viewed, because damage below a box goes unnoticed."""
    decoded = 0
    for data in mutated(encode):
        height, width = native.jpeg_shape(data) or (1 << 16, 1 << 16)
        if height * width < 100_000:
            view = View(0, 0, height, width, 20, 30, 1, 2, 15, 20, True)
            found = native.view_jpeg(data, view)
            assert found is None or np.array_equal(found, by_pil(data, view))
            decoded += found is not None
    assert decoded > 100


def test_sanitizers_find_nothing(encode: Encode, tmp_path: Path) -> None:
    """No access out of bounds, leak, undefined arithmetic or large allocation.

    The results are the same with AVX2 and BMI2 as without, and with our Huffman decoder as with libjpeg-turbo's.
    """
    archive = tmp_path / "archive"
    archive.write_bytes(b"".join(struct.pack("I", len(data)) + data for data in mutated(encode)))
    flags = ["-std=gnu11", "-g", "-O1", "-DLARGE=16"]  # small images are scaled too
    flags += ["-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    said = []
    for plain in (0, 1):
        driver = tmp_path / f"driver{plain}"
        compile_c(Path(__file__).with_name("native_driver.c"), driver, *flags, f"-DPLAIN={plain}")
        options = {"ASAN_OPTIONS": "max_allocation_size_mb=100:detect_leaks=1"}
        done = subprocess.run([driver, archive], env=options, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    lines = said[0].splitlines()
    for line in lines:
        words = line.split()[2:]
        assert words[: len(words) // 2] == words[len(words) // 2 :], "the batch differs from single calls"
    assert all(line.count(" 1") >= 9 for line in lines[:24]), "intact images must be decoded"
    assert len(lines) == 624 and sum(": 0" in line for line in lines) > 20
