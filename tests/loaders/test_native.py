"""The native decoder gives PIL's pixels to the bit; and what it cannot read, others read as they did before."""

from __future__ import annotations

import ctypes
import io
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

from config import ConfigError, load
from config.errors import DataError
from data import build_imagenet_dataspec
from loaders import decoders, native
from loaders.decoding import open_picture
from loaders.native import View
from loaders.transforms import EvaluationPipeline, TrainingPipeline
from tests.loaders.test_storages import odd_pictures
from tests.runs import ROOT

built = pytest.mark.skipif(not native.available(), reason=f"{native.LIBRARY.name} is not built: {native.HOW_TO_BUILD}")
PHOTO = load_sample_images().images[0]
Encode = Callable[..., bytes]


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    """Compile one file of C; skips the test where there is no compiler or no header of libjpeg-turbo."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    probe = [compiler, "-xc", "-fsyntax-only", "-include", "stdio.h", "-include", "jpeglib.h", "/dev/null"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("libjpeg-turbo's headers are missing: apt-get install libjpeg62-turbo-dev")
    command = [compiler, "-Wall", "-Wextra", "-Werror", *flags, "-o", str(target), str(source), "-ljpeg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """`encode(pixels, across=2, down=1, ...)`: the options of encode.c, the rest 0."""
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


def by_pil(data: bytes, view: View) -> np.ndarray:
    """The reference: decode all, cut, resize all, cut again, mirror."""
    return decoders.PilPicture(data).view(view).permute(1, 2, 0).numpy()


@st.composite
def views(draw: st.DrawFn, height: int, width: int) -> View:
    """A box, at the edges of the picture more often than by chance; its size afterwards; a part of that."""

    def part(length: int) -> tuple[int, int]:
        size = draw(st.integers(1, length))
        return draw(st.sampled_from([0, length - size]) | st.integers(0, length - size)), size

    (top, tall), (left, wide) = part(height), part(width)
    rows, columns = draw(st.just((tall, wide)) | st.tuples(st.integers(1, 200), st.integers(1, 200)))
    (top_row, kept_rows), (left_column, kept_columns) = part(rows), part(columns)
    size = (rows, columns, top_row, left_column, kept_rows, kept_columns)
    return View(top, left, tall, wide, *size, draw(st.booleans()))


@built
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_every_view_of_every_jpeg_is_pils(encode: Encode, data: st.DataObject) -> None:
    """4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1 and odder ones, any quality, grey or not, in one scan or several."""
    height, width = data.draw(
        st.tuples(st.integers(1, 40), st.integers(1, 300)) | st.tuples(*[st.integers(1, 200)] * 2)
    )
    across, down = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 2), (1, 4)]))
    pixels = PHOTO[100 : 100 + height, 50 : 50 + width]
    pixels = pixels[..., 1] if data.draw(st.integers(0, 9)) == 0 else pixels
    flags = ("progressive", "optimized", "restart_rows", "keep_rgb")
    options = {name: int(data.draw(st.integers(0, 3)) == 0) for name in flags}
    options["keep_rgb"] *= pixels.ndim == 3
    encoded = encode(pixels, across=across, down=down, quality=data.draw(st.integers(1, 100)), **options)
    assert native.jpeg_shape(encoded) == (height, width)
    for view in data.draw(st.lists(views(height, width), min_size=3, max_size=3)):
        found = native.view_jpeg(encoded, view)
        assert found is not None and np.array_equal(found, by_pil(encoded, view))


@built
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_views_of_pixels_are_pils(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(*[st.integers(1, 150)] * 2))
    pixels = PHOTO[50 : 50 + height, 10 : 10 + width]
    view = data.draw(views(height, width))
    assert np.array_equal(native.view_pixels(pixels, view), by_pil(pixels, view))


@built
def test_boxes_outside_the_picture_are_refused() -> None:
    whole = View(0, 0, 40, 50, 8, 8, 0, 0, 8, 8)
    assert native.view_pixels(PHOTO[:40, :50], whole).shape == (8, 8, 3)
    for wrong in ({"top": 1}, {"left": -1}, {"width": 51}, {"height": 0}, {"top_row": 1}, {"kept_columns": 9}):
        with pytest.raises(ValueError, match="is no view of 40 x 50 pixels"):
            native.view_pixels(PHOTO[:40, :50], whole._replace(**wrong))
        assert native.view_jpeg(jpeg(PHOTO[:40, :50]), whole._replace(**wrong)) is None


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


@built
@pytest.mark.parametrize(("resize", "size"), [(-1, 176), (-1, 64), (300, 224)])
def test_training_crops_are_torchvisions(resize: int, size: int) -> None:
    """The same boxes, flips and pixels as RandomResizedCrop and RandomHorizontalFlip on PIL pictures."""
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
    pipeline = TrainingPipeline(resize, size, decoder="native")
    for seed in range(30):
        data = jpeg(PHOTO[:: 1 + seed % 2], quality=60 + seed, subsampling=seed % 3)
        torch.manual_seed(seed)
        expected = np.asarray(reference(open_picture(data)))
        torch.manual_seed(seed)
        assert np.array_equal(pipeline(data).permute(1, 2, 0).numpy(), expected)


@built
@pytest.mark.parametrize(("resize", "size"), [(232, 224), (256, 224), (-1, 224), (-1, 501), (64, 63)])
def test_evaluation_is_torchvisions(resize: int, size: int) -> None:
    steps = [transforms.CenterCrop(size)]
    reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
    for height, width in ((427, 640), (427, 301), (225, 224), (63, 200)):
        data = jpeg(PHOTO[:height, :width])
        found = EvaluationPipeline(resize, size, decoder="native")(data).permute(1, 2, 0).numpy()
        assert np.array_equal(found, np.asarray(reference(open_picture(data))))


@built
@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_pils_too(name: str) -> None:
    """CMYK, PNGs by any name, palettes, alpha: decoded as before, then resized by the same filter as JPEGs are."""
    for make in (lambda decoder: TrainingPipeline(-1, 16, decoder=decoder), lambda d: EvaluationPipeline(20, 16, d)):
        found = []
        for decoder in ("native", "pil"):
            torch.manual_seed(3)
            found.append(make(decoder)(odd_pictures()[name]))
        assert torch.equal(*found)


@built
def test_unusual_jpegs_are_left_to_others(encode: Encode) -> None:
    """And give what they gave before: pixels, or PIL's complaint."""
    pixels = PHOTO[:90, :70]
    scans = encode(pixels, progressive=1).split(b"\xff\xda")
    for data in (
        encode(np.dstack([pixels, pixels[..., :1]])),  # CMYK
        encode(pixels, arithmetic=1),
        encode(pixels) + b"\0" * 7,
        b"\xff\xda".join(scans[: len(scans) // 2]) + b"\xff\xd9",  # some scans are missing, and nothing else
        jpeg(pixels).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1),  # 12 bits
    ):
        view = View(3, 5, 40, 30, 20, 20, 0, 0, 20, 20)
        assert native.view_jpeg(data, view) is None
        assert outcome("native", data) == outcome("torchvision", data)


def outcome(decoder: str, data: bytes) -> str | bytes:
    """The pixels of an evaluation picture, or what was complained of."""
    try:
        return EvaluationPipeline(-1, 24, decoder)(data).numpy().tobytes()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@built
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_truncated_jpegs_are_refused(cut: float) -> None:
    """Whether or not the box lies in what is there."""
    for progressive in (False, True):
        whole = jpeg(PHOTO, progressive=progressive)
        damaged = whole[: int(len(whole) * cut)]
        top = View(0, 0, 16, 16, 16, 16, 0, 0, 16, 16)
        with pytest.raises(OSError, match="truncated"):
            decoders.NativePicture(damaged).view(top)
        assert outcome("native", damaged) == outcome("torchvision", damaged)


@built
def test_damage_is_never_seen_as_grey() -> None:
    """A scan that ends early, or has a marker in its midst, is left to others, as whatever libjpeg-turbo warns of."""
    whole = jpeg(PHOTO[:200, :200])
    start = whole.index(b"\xff\xda") + 200
    view = View(100, 100, 100, 100, 50, 50, 0, 0, 50, 50)
    assert native.view_jpeg(whole, view) is not None
    for marker in (b"\xff\xd9", b"\xff\xd0", b"\xff\xc4"):
        damaged = whole[:start] + marker + whole[start + 2 :]
        assert native.view_jpeg(damaged, view) is None
        assert outcome("native", damaged) == outcome("torchvision", damaged)


@built
def test_threads_do_not_meet() -> None:
    files = [jpeg(PHOTO[n : n + 200, n:], quality=50 + n) for n in range(40)]
    view = View(10, 20, 150, 160, 64, 64, 0, 0, 64, 64, True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: native.view_jpeg(data, view), files * 5))
    for pixels, data in zip(found, files * 5, strict=True):
        assert np.array_equal(pixels, by_pil(data, view))


def mutated(encode: Encode) -> list[bytes]:
    """Whole JPEGs, and hundreds with bytes changed, left out, or a size that they do not have."""
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
def test_damaged_pictures_are_pils_or_left_to_others(encode: Encode) -> None:
    """Seen whole; of a box, what is damaged below it is not noticed."""
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
    """No access outside of memory, no leak, no undefined arithmetic, no large allocation; both loops give the same."""
    archive = tmp_path / "archive"
    archive.write_bytes(b"".join(struct.pack("I", len(data)) + data for data in mutated(encode)))
    flags = ["-std=gnu11", "-g", "-O1", "-DLARGE=16"]  # so that small pictures are scaled, too
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
        assert words[: len(words) // 2] == words[len(words) // 2 :], "all at once as one by one"
    assert all(line.count(" 1") >= 9 for line in lines[:24]), "the whole ones are decoded"
    assert len(lines) == 624 and sum(": 0" in line for line in lines) > 20


def test_native_that_is_not_built_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the configuration, and by the function; `auto` does without it."""
    monkeypatch.setattr(native, "available", lambda: False)
    assert decoders.chosen("auto") == "torchvision"
    assert decoders.described("torchvision").endswith("(faster: apt-get install libjpeg62-turbo-dev && make env)")
    assert len(decoders.described("torchvision")) <= 80
    words = [str(ROOT / "yamls/digits.yaml"), "train_dataset.decoder=native", "eval_dataset.decoder=jpeg"]
    with pytest.raises(ConfigError) as refused:
        load(words)
    assert "train_dataset.decoder: native is not built here; type apt-get install" in str(refused.value)
    assert "eval_dataset.decoder: jpeg given, but it must be auto, native, native_scaled, torchvision or pil" in str(
        refused.value
    )
    with pytest.raises(DataError, match="decoder=native is not built here"):
        build_imagenet_dataspec(tmp_path, False, 2, decoder="native")


def test_a_library_of_another_kind_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another program's, a text, or none."""
    try:
        for content in (None, b"no library", Path(np._core._multiarray_umath.__file__).read_bytes()):
            library = tmp_path / f"{content is None}{len(content or b'')}.so"
            if content is not None:
                library.write_bytes(content)
            monkeypatch.setattr(native, "LIBRARY", library)
            native._library.cache_clear()
            assert not native.available()
    finally:
        native._library.cache_clear()
