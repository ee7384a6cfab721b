"""The native decoder gives PIL's pixels bitwise, and leaves to other decoders what it cannot read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import transforms

from common.errors import DataError
from config import ConfigError, load
from data import build_imagenet_dataspec
from loaders.images import decoders, native
from loaders.images.decoders import INTERPOLATIONS
from loaders.images.decoding import open_image
from loaders.images.native import View
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from tests.loaders.jpegs import PHOTO, Encode, built, by_pil, jpeg, odd_images, outcome
from tests.runs import ROOT

BILINEAR, BICUBIC = map(INTERPOLATIONS.index, ("bilinear", "bicubic"))


@st.composite
def views(draw: st.DrawFn, height: int, width: int) -> View:
    """Draw a box, often at the image's edges, a size to resize it to, and the part of the result to keep."""

    def part(length: int) -> tuple[int, int]:
        size = draw(st.integers(1, length))
        return draw(st.sampled_from([0, length - size]) | st.integers(0, length - size)), size

    (top, tall), (left, wide) = part(height), part(width)
    rows, columns = draw(st.just((tall, wide)) | st.tuples(st.integers(1, 200), st.integers(1, 200)))
    (top_row, kept_rows), (left_column, kept_columns) = part(rows), part(columns)
    size = (rows, columns, top_row, left_column, kept_rows, kept_columns)
    return View(top, left, tall, wide, *size, draw(st.booleans()), filter=draw(st.sampled_from([BILINEAR, BICUBIC])))


@built
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_every_view_of_every_jpeg_equals_pils(encode: Encode, data: st.DataObject) -> None:
    """4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1 and others, any quality, color or gray, one scan or several."""
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
def test_views_of_pixels_equal_pils(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(*[st.integers(1, 150)] * 2))
    pixels = PHOTO[50 : 50 + height, 10 : 10 + width]
    view = data.draw(views(height, width))
    assert np.array_equal(native.view_pixels(pixels, view), by_pil(pixels, view))


@built
def test_boxes_outside_the_image_are_rejected() -> None:
    whole = View(0, 0, 40, 50, 8, 8, 0, 0, 8, 8)
    assert native.view_pixels(PHOTO[:40, :50], whole).shape == (8, 8, 3)
    for wrong in (
        {"top": 1},
        {"left": -1},
        {"width": 51},
        {"height": 0},
        {"top_row": 1},
        {"kept_columns": 9},
        {"filter": 3},
    ):
        with pytest.raises(ValueError, match="is not a view of 40 x 50 pixels"):
            native.view_pixels(PHOTO[:40, :50], whole._replace(**wrong))
        assert native.view_jpeg(jpeg(PHOTO[:40, :50]), whole._replace(**wrong)) is None


@built
@pytest.mark.parametrize(("resize", "size"), [(-1, 176), (-1, 64), (300, 224)])
def test_training_crops_equal_torchvisions(resize: int, size: int) -> None:
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
    pipeline = TrainingPipeline(resize, size, decoder="native")
    for seed in range(30):
        data = jpeg(PHOTO[:: 1 + seed % 2], quality=60 + seed, subsampling=seed % 3)
        torch.manual_seed(seed)
        expected = np.asarray(reference(open_image(data)))
        torch.manual_seed(seed)
        assert np.array_equal(pipeline(data).permute(1, 2, 0).numpy(), expected)


@built
@pytest.mark.parametrize(("resize", "size"), [(232, 224), (256, 224), (-1, 224), (-1, 501), (64, 63)])
def test_evaluation_equals_torchvisions(resize: int, size: int) -> None:
    steps = [transforms.CenterCrop(size)]
    reference = transforms.Compose([transforms.Resize(resize), *steps] if resize > 0 else steps)
    for height, width in ((427, 640), (427, 301), (225, 224), (63, 200)):
        data = jpeg(PHOTO[:height, :width])
        found = EvaluationPipeline(resize, size, decoder="native")(data).permute(1, 2, 0).numpy()
        assert np.array_equal(found, np.asarray(reference(open_image(data))))


@built
@pytest.mark.parametrize("name", odd_images())
def test_odd_images_equal_pils(name: str) -> None:
    """CMYK, PNGs by any name, palettes, alpha: decoded by PIL, then resized by the same filter as JPEGs."""
    for make in (lambda decoder: TrainingPipeline(-1, 16, decoder=decoder), lambda d: EvaluationPipeline(20, 16, d)):
        found = []
        for decoder in ("native", "pil"):
            torch.manual_seed(3)
            found.append(make(decoder)(odd_images()[name]))
        assert torch.equal(*found)


@built
def test_unusual_jpegs_are_left_to_pil(encode: Encode) -> None:
    pixels = PHOTO[:90, :70]
    scans = encode(pixels, progressive=1).split(b"\xff\xda")
    for data in (
        encode(np.dstack([pixels, pixels[..., :1]])),  # CMYK
        encode(pixels, arithmetic=1),
        encode(pixels) + b"\0" * 7,
        b"\xff\xda".join(scans[: len(scans) // 2]) + b"\xff\xd9",  # missing scans
        jpeg(pixels).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1),  # 12 bits
    ):
        view = View(3, 5, 40, 30, 20, 20, 0, 0, 20, 20)
        assert native.view_jpeg(data, view) is None
        assert outcome("native", data) == outcome("pil", data)


@built
def test_concurrent_calls() -> None:
    files = [jpeg(PHOTO[n : n + 200, n:], quality=50 + n) for n in range(40)]
    view = View(10, 20, 150, 160, 64, 64, 0, 0, 64, 64, True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: native.view_jpeg(data, view), files * 5))
    for pixels, data in zip(found, files * 5, strict=True):
        assert np.array_equal(pixels, by_pil(data, view))


def test_native_is_rejected_when_it_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the configuration and by the function; `auto` works without it."""
    monkeypatch.setattr(native, "available", lambda: False)
    assert decoders.chosen("auto") == "torchvision"
    assert decoders.described("torchvision").endswith("(faster: apt-get install libjpeg62-turbo-dev && make env)")
    assert len(decoders.described("torchvision")) <= 80
    words = [str(ROOT / "yamls/digits.yaml"), "train_dataset.decoder=native", "eval_dataset.decoder=jpeg"]
    with pytest.raises(ConfigError) as refused:
        load(words)
    assert "train_dataset.decoder: native is not built here; type apt-get install" in str(refused.value)
    assert "eval_dataset.decoder: jpeg given, but it must be auto, native, " in str(refused.value)
    with pytest.raises(DataError, match="decoder: native is not built here"):
        build_imagenet_dataspec(tmp_path, False, 2, decoder="native")


def test_a_foreign_library_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library of another program, a text file, or no file."""
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
