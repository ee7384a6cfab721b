"""The native decoder compiled for ARM (aarch64) and emulated gives the same pixels as on this machine.

libjpeg-turbo's inverse DCTs in NEON, AVX2 and plain C agree on all coefficients that an encoder writes. Coefficients
several times as large, which damage may produce, overflow 16-bit arithmetic, in NEON and AVX2 differently. Damaged
files are therefore compared with libjpeg-turbo's SIMD code turned off; with it on, the driver compares our Huffman
decoder with libjpeg-turbo's on each machine.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.loaders.jpegs import PHOTO, Encode, compile_c, jpeg
from tests.loaders.test_huffman import NOISE, damaged, with_code
from tests.loaders.test_native_damage import mutated

PACKAGES = "gcc-aarch64-linux-gnu qemu-user libjpeg62-turbo-dev:arm64"
INSTALL = f"dpkg --add-architecture arm64 && apt-get update && apt-get install {PACKAGES}"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
LIBRARY = ("/usr/lib/aarch64-linux-gnu/libjpeg.a", "/usr/include/aarch64-linux-gnu/jconfig.h")
MISSING = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
MISSING += [path for path in LIBRARY if not Path(path).exists()]
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-pthread", "-DLARGE=16"]  # small images are scaled too
ARM_FLAGS = ["-static", "-g", "-fsanitize=undefined", "-fno-sanitize-recover"]
WITHOUT_SIMD = {"JSIMD_FORCENONE": "1"}  # read by libjpeg-turbo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not found. {INSTALL}"),
]


def intact(encode: Encode) -> list[bytes]:
    """Return JPEGs of every subsampling and kind, of qualities from 1 to 100."""
    rng, files = random.Random(0), []
    for across, down in ((1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 2), (1, 4)):
        for kind in ("plain", "gray", "progressive", "optimized", "restart_rows", "keep_rgb"):
            for quality in (1, 30, 75, 100):
                pixels = rng.choice([PHOTO, NOISE])[: rng.randint(1, 150), : rng.randint(1, 200)]
                pixels = pixels[..., 1] if kind == "gray" else pixels
                options = {} if kind in ("plain", "gray") else {kind: 1}
                files.append(encode(pixels, across=across, down=down, quality=quality, **options))
    return files


def broken(encode: Encode) -> list[bytes]:
    """Return damaged JPEGs, also of several scans or wrong size, and JPEGs with codes that no encoder writes."""
    rng = random.Random(0)
    whole = [
        jpeg(source[:70, :150], quality=quality, subsampling=quality % 3, **restarts)
        for source in (PHOTO, NOISE)
        for quality, restarts in ((30, {}), (50, {"restart_marker_rows": 1}), (91, {"restart_marker_blocks": 2}))
    ]
    return (
        mutated(encode) + [damaged(rng, rng.choice(whole)) for _ in range(300)] + [with_code(rng) for _ in range(100)]
    )


@pytest.fixture(scope="module")
def archive(encode: Encode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "archive"
    path.write_bytes(b"".join(struct.pack("I", len(data)) + data for data in intact(encode) + broken(encode)))
    return path


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Commands that decode an archive on this machine, and emulated."""
    folder, source = tmp_path_factory.mktemp("drivers"), Path(__file__).with_name("native_driver.c")
    here = compile_c(source, folder / "here", *FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", COMPILER)
        arm = compile_c(source, folder / "arm", *FLAGS, *ARM_FLAGS)
    return [str(here)], [EMULATOR, str(arm)]


def decoded(driver: list[str], archive: Path, environment: dict[str, str]) -> list[str]:
    """Return a line per file: whether each view was decoded, and its hash."""
    command = [shutil.which(driver[0]) or driver[0], *driver[1:], str(archive)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_pixels_equal_those_of_this_machine(
    encode: Encode, archive: Path, drivers: tuple[list[str], list[str]]
) -> None:
    """And nothing is undefined in C, where the two may differ."""
    here, arm = (decoded(driver, archive, {}) for driver in drivers)
    count = len(intact(encode))
    assert len(here) == len(arm) > count
    assert here[:count] == arm[:count]
    assert all(line.split()[2::2] == ["1"] * 8 for line in arm[:count]), "intact images must be decoded"


def test_damage_has_the_same_result_without_libjpegs_simd_code(
    archive: Path, drivers: tuple[list[str], list[str]]
) -> None:
    here, arm = (decoded(driver, archive, WITHOUT_SIMD) for driver in drivers)
    assert here == arm
