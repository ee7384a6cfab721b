"""Fixtures of the loaders' tests: an image folder, the same images as shards, odd images, and a JPEG encoder."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.image_files import make_imagefolder, make_shards
from tests.loaders.jpegs import PHOTO, Encode, compile_c, jpeg, odd_images


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a failing store within seconds, but wait for one that is slow because the machine is busy."""
    for name, seconds in {"PATIENCE": 6.0, "FIRST_PATIENCE": 3.0}.items():
        monkeypatch.setattr(f"common.s3.{name}", seconds)
    for name in ("CONNECT_TIMEOUT", "READ_TIMEOUT", "ANSWER_TIMEOUT"):
        monkeypatch.setattr(f"common.s3.{name}", 60.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageFolder of three classes, with 20 images per class in train/ and in val/."""
    return make_imagefolder(tmp_path_factory.mktemp("folder"), per_class=20)


@pytest.fixture(scope="session")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `folder` as uncompressed MDS, several shards per split."""
    return make_shards(folder, tmp_path_factory.mktemp("shards"), size_limit=16_000)


@pytest.fixture(scope="session")
def compressed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `folder` as zstd-compressed MDS, several shards per split."""
    return make_shards(folder, tmp_path_factory.mktemp("compressed"), size_limit=16_000, compression="zstd:3")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ordinary JPEGs of several sizes, one smaller than any crop, mixed with all the odd kinds."""
    root = tmp_path_factory.mktemp("odd") / "train"
    plain = {f"plain{n}.jpeg": jpeg(PHOTO[: 60 + 40 * n, n:], quality=70 + n, subsampling=n % 3) for n in range(6)}
    for number, (name, data) in enumerate((plain | odd_images()).items()):
        path = root / f"class{number % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root.parent


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """`encode(pixels, across=2, down=1, ...)`, with the options of encode.c; the rest default to 0."""
    library = tmp_path_factory.mktemp("encode") / "encode.so"
    function = ctypes.CDLL(str(compile_c(Path(__file__).with_name("encode.c"), library, "-shared", "-fPIC"))).encode
    function.restype, function.argtypes = ctypes.c_size_t, [ctypes.c_void_p] * 3 + [ctypes.c_size_t]
    names = "across down quality progressive optimized restart_rows keep_rgb arithmetic".split()

    def encoded(pixels: np.ndarray, **options: int) -> bytes:
        pixels = np.ascontiguousarray(pixels)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        given = {"across": 1, "down": 1, "quality": 90} | options
        values = [*pixels.shape[:2], channels, *(given.get(name, 0) for name in names)]
        out = np.empty(8 * pixels.size + 100_000, np.uint8)
        options_of_c = (ctypes.c_int32 * len(values))(*values)
        size = function(pixels.ctypes.data, ctypes.addressof(options_of_c), out.ctypes.data, out.size)
        return out[:size].tobytes()

    return encoded
