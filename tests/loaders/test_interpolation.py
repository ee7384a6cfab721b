"""Resampling filters: bicubic is Pillow's, area is OpenCV's INTER_AREA, with every decoder and storage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import DataError
from config import ConfigError, load
from data import build_imagenet_dataspec
from loaders.images import native
from loaders.images.decoders import DECODERS, INTERPOLATIONS
from loaders.images.native import View, whole
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.packed import PackedDataset
from tests.image_files import make_imagefolder
from tests.loaders.jpegs import PHOTO, built, jpeg
from tests.runs import ROOT

AREA = INTERPOLATIONS.index("area")
# (rows, columns) of PHOTO's box -> (rows, columns), and the hash of what OpenCV 4.11.0 and 5.0.0 make of it (x86).
GOLDEN = {
    ((320, 480), (160, 160)): "1059dcdd02371eea",  # whole scales of 2 and 3
    ((320, 320), (160, 160)): "e2c4e406d38a5775",  # 2 x 2, which rounds half up
    ((300, 400), (176, 176)): "d823667057b32034",  # fractional scales
    ((375, 500), (224, 224)): "3760c54eb03fed73",
    ((160, 500), (160, 125)): "2d748034688e1c44",  # scales of 1 and 4
    ((100, 131), (192, 192)): "fbd8d607aae70632",  # enlarged
    ((380, 90), (128, 128)): "7e82bb92e1f0562d",  # enlarged across, shrunk down
}
MOST_BY_TORCH = {"bilinear": 1, "bicubic": 3, "area": 0}  # distance of torch's pixels from PIL's


def by_opencv(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resize with INTER_AREA."""
    cv2 = pytest.importorskip("cv2")
    return cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)


def hash_of(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


@built
@pytest.mark.parametrize(("box", "size"), GOLDEN)
def test_area_equals_opencvs_recorded_pixels(box: tuple[int, int], size: tuple[int, int]) -> None:
    found = native.view_pixels(PHOTO, View(40, 60, *box, *size, 0, 0, *size, filter=AREA))
    assert hash_of(found) == GOLDEN[box, size]


@built
def test_area_equals_opencvs_pixels() -> None:
    """Any box, size, kept part and flip."""
    rng = np.random.default_rng(0)
    for n in range(600):
        rows, columns = rng.integers(1, (60, 250)[n % 2], 2).tolist()
        height, width = rng.integers(1, 400, 2).tolist() if n % 3 else (rows * (1 + n % 5), columns * (1 + n % 4))
        height, width = min(height, 400), min(width, 600)
        top, left = int(rng.integers(0, 427 - height)), int(rng.integers(0, 640 - width))
        corner = int(rng.integers(0, rows)), int(rng.integers(0, columns))
        kept = int(rng.integers(1, rows - corner[0] + 1)), int(rng.integers(1, columns - corner[1] + 1))
        view = View(top, left, height, width, rows, columns, *corner, *kept, flip=bool(n & 1), filter=AREA)
        resized = by_opencv(PHOTO[top : top + height, left : left + width], rows, columns)
        expected = resized[corner[0] : corner[0] + kept[0], corner[1] : corner[1] + kept[1]]
        found = native.view_pixels(PHOTO, view)
        assert np.array_equal(found, expected[:, ::-1] if view.flip else expected), view


@built
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", [-1, 300])
def test_decoders_agree(interpolation: str, resize: int) -> None:
    """All of them make PIL's pixels with bicubic but for torch's rounding, and OpenCV's with area."""
    data = jpeg(PHOTO, quality=90)
    for pipeline in (TrainingPipeline, EvaluationPipeline):
        found = {}
        for name in DECODERS:
            torch.manual_seed(5)
            found[name] = pipeline(resize, 224, decoder=name, interpolation=interpolation)(data).int()
        for name in ("native", "native_libjpeg", "torchvision"):
            most = MOST_BY_TORCH[interpolation] if name == "torchvision" else 0
            assert (found[name] - found["pil"]).abs().max() <= most


@built
def test_filters_differ() -> None:
    data = jpeg(PHOTO)
    found = [EvaluationPipeline(256, 224, "native", name)(data).int() for name in INTERPOLATIONS]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (found[one] - found[other]).abs().max() > 10


@built
@pytest.mark.parametrize("shape", [(427, 640), (427, 301), (256, 300), (240, 300), (293, 293), (1, 5)])
def test_crop_ratio_is_ffcvs_center_crop(shape: tuple[int, int]) -> None:
    """ffcv's get_center_crop and its resize: int(ratio * short side), rounded down, and INTER_AREA."""
    pixels = np.ascontiguousarray(PHOTO[: shape[0], : shape[1]])
    side = max(1, int(224 / 256 * min(shape)))
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    expected = by_opencv(pixels[top : top + side, left : left + side], 256, 256)
    for decoder in ("native", "pil"):
        pipeline = EvaluationPipeline(-1, 256, decoder, "area", 0.875)
        assert np.array_equal(pipeline(pixels).permute(1, 2, 0).numpy(), expected)


@built
def test_a_whole_batch_equals_single_images(tmp_path: Path) -> None:
    """From the batch decoder, and from packed pixels; a packed image is reduced by the same filter."""
    root = make_imagefolder(tmp_path, classes=("a", "b"), per_class=2)
    for interpolation in INTERPOLATIONS:
        pipeline = EvaluationPipeline(-1, 24, "native", interpolation, 0.875)
        images = ImageFolderDataset(root, "val", pipeline, seed=0)
        keys = [(0, n, 24) for n in range(len(images))]
        singly = torch.stack([images[key][0] for key in keys])
        together = torch.stack([image for image, _ in images.__getitems__(keys)])
        packed = torch.stack([image for image, _ in PackedDataset(images).__getitems__(keys)])
        assert torch.equal(singly, together) and torch.equal(singly, packed)
    smaller = PackedDataset(images, pack_size=20)
    expected = native.view_jpeg(images.read(0)[0], whole(*images.measure(0)[:2], *smaller.shapes[0].tolist(), AREA))
    assert np.array_equal(smaller.read(0)[0], expected) and smaller.shapes[0].min() == 20


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load([str(ROOT / "yamls/resnet50.yaml"), "dry_run=true", *words])
    return str(refused.value)


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = refusal("train_dataset.interpolation=bicubc", "eval_dataset.crop_ratio=1.5")
    assert "train_dataset.interpolation: bicubc given, but it must be bilinear, bicubic or area; did you" in said
    assert "eval_dataset.crop_ratio: 1.5 given, but it must be more than 0 and at most 1" in said
    said = refusal("eval_dataset.crop_ratio=0.875")
    assert "eval_dataset.crop_ratio: 0.875 given, and eval_dataset.resize_size=256, but one of them sets" in said
    assert "type eval_dataset.resize_size=-1, or eval_dataset.crop_ratio=null" in said
    dali = ("train_dataset.storage=dali", "eval_dataset.storage=dali", "eval_dataset.resize_size=-1")
    said = refusal(*dali, "train_dataset.interpolation=bicubic", "eval_dataset.crop_ratio=0.875")
    assert "train_dataset.interpolation: bicubic given, but storage dali crops in its own way; type train_data" in said
    assert "eval_dataset.crop_ratio: 0.875 given, but storage dali crops in its own way; type eval_dataset.c" in said
    monkeypatch.setattr(native, "available", lambda: False)
    said = refusal("train_dataset.interpolation=area")
    assert "train_dataset.interpolation: only our own C computes area, and it is not built here; type apt-get" in said
    with pytest.raises(DataError, match="only our own C computes area"):
        build_imagenet_dataspec(tmp_path, False, 2, interpolation="area")
