"""Batches decoded in one call, in any number of threads, equal the images decoded one by one, bitwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from common.errors import DataError
from config import ConfigError, load
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.images import native
from loaders.images.boxes import ASPECT_RATIO, random_box
from loaders.images.native import View
from loaders.images.transforms import Batch, EvaluationPipeline, Pipeline, TrainingPipeline, collate
from loaders.storage.kinds import open_dataset
from loaders.workers import decode_threads
from tests.loaders.jpegs import PHOTO, built, jpeg
from tests.runs import ROOT

KEYS = [(3, index) for index in (5, 1, 0, 7, 2, 2, 11)]


def dataset_of(root: Path, storage: str, pipeline: Pipeline) -> ImageDataset:
    return open_dataset(storage, str(root), is_streaming=False, local=None, split="train", pipeline=pipeline, seed=17)


@built
@pytest.mark.parametrize("threads", [1, 3, 50])
@pytest.mark.parametrize("storage", ["imagefolder", "packed"])
@pytest.mark.parametrize("make", [TrainingPipeline, EvaluationPipeline])
def test_a_batch_equals_its_images(make: type[Pipeline], storage: str, threads: int, odd: Path) -> None:
    pipeline = make(-1, 64, decoder="native")
    pipeline.threads = threads
    dataset = dataset_of(odd, storage, pipeline)
    keys = [*KEYS, *((0, index) for index in range(len(dataset)))]
    for size in ((), (48,)):  # progressive resizing adds the size to the key
        asked = [(*key, *size) for key in keys]
        made = dataset.__getitems__(asked)
        assert isinstance(made, Batch)
        images, labels = collate(made)
        expected, of_each = collate([dataset[key] for key in asked])
        assert torch.equal(images, expected) and torch.equal(labels, of_each)
        for sample, image, label in zip(made, images, labels, strict=True):  # as other collate functions read it
            assert torch.equal(sample[0], image) and sample[1] == label
        assert images.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64


@built
def test_other_batches_are_decoded_one_by_one(odd: Path) -> None:
    """Transforms after the crop, a resize before it, other decoders, two sizes in a batch."""
    one_by_one = [
        TrainingPipeline(-1, 32, [torch.clone], decoder="native"),
        TrainingPipeline(80, 32, decoder="native"),
        TrainingPipeline(-1, 32, decoder="torchvision"),
    ]
    for pipeline in one_by_one:
        assert not isinstance(dataset_of(odd, "imagefolder", pipeline).__getitems__(KEYS), Batch)
    mixed = [(0, 1, 32), (0, 2, 48)]
    assert not isinstance(dataset_of(odd, "imagefolder", TrainingPipeline(-1, 32)).__getitems__(mixed), Batch)


@built
def test_the_global_generator_is_not_used(odd: Path) -> None:
    dataset = dataset_of(odd, "imagefolder", TrainingPipeline(-1, 32, decoder="native"))
    before = torch.get_rng_state()
    dataset.__getitems__(KEYS)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
@built
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(
    workers: int, odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(decoder: str) -> list[torch.Tensor]:
        loader = build_imagenet_dataspec(
            odd, False, 4, crop_size=40, num_workers=workers, seed=3, decoder=decoder
        ).dataloader
        return [tensor for batch in loader for tensor in batch]

    images = everything("native")
    monkeypatch.setattr(Pipeline, "batches", False)
    monkeypatch.setattr(TrainingPipeline, "batches", False)
    for found, expected in zip(images, everything("native"), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.slow
@built
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_in_a_batch_is_named(workers: int, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "train" / "class" / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(PHOTO)[: 9000 if number == 2 else None])
    loader = build_imagenet_dataspec(tmp_path, False, 4, crop_size=40, num_workers=workers, decoder="native").dataloader
    with pytest.raises(DataError, match=r"2\.jpeg: cannot be read as an image"):
        next(iter(loader))


@built
def test_views_that_do_not_fit_are_rejected() -> None:
    view = View(0, 0, 40, 50, 8, 8, 0, 0, 8, 8)
    out = np.zeros((2, 8, 8, 3), np.uint8)
    views, batch = np.array([view, view], np.int32), native.Batch([None, PHOTO[:40, :50]])
    assert batch.shapes.tolist() == [[0, 0], [40, 50]]
    assert batch.view(0 * views, out, 2).tolist() == [False, False] and not out.any()
    assert batch.view(views, out, 2).tolist() == [False, True] and not out[0].any() and out[1].any()
    for wrong in (out[:1], out.astype(np.int32), out[:, ::2], out[:, :, :4]):
        with pytest.raises(ValueError, match="do not fit"):
            batch.view(views, wrong, 2)
    with pytest.raises(ValueError, match="do not fit"):
        batch.view(views[:1], out[:1], 2)
    assert native.Batch([]).view(views[:0], out[:0], 2).tolist() == []


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    smallest=st.sampled_from([0.08, 0.25, 0.99]),
    seed=st.integers(0, 2**63 - 1),
)
def test_boxes_equal_torchvisions(height: int, width: int, smallest: float, seed: int) -> None:
    torch.manual_seed(seed)
    expected = RandomResizedCrop.get_params(
        torch.empty(1).expand(1, height, width), [smallest, 1.0], list(ASPECT_RATIO)
    )
    assert random_box(height, width, smallest, torch.Generator().manual_seed(seed)) == tuple(expected)


def test_threads_use_the_cores_that_workers_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert [decode_threads(workers) for workers in (0, 1, 3, 8, 16, 40)] == [16, 16, 5, 2, 1, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert decode_threads(1) == 2


# ---- native_scaled


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / np.mean((found.astype(float) - expected) ** 2)))


@built
@pytest.mark.parametrize("subsampling", [0, 1, 2, None], ids=["444", "422", "420", "grey"])
def test_large_images_are_decoded_smaller(subsampling: int | None) -> None:
    """Close to the exact pixels wherever the box is; an offset of one pixel would give less than 30 dB."""
    large = np.kron(PHOTO, np.ones((4, 4, 1), np.uint8))[:1600, :2500]
    data = jpeg(large[..., 1], quality=95) if subsampling is None else jpeg(large, quality=95, subsampling=subsampling)
    boxes = [(0, 0, 1600, 2500), (3, 5, 1597, 2495), (801, 1007, 777, 1203), (1, 1303, 500, 400), (900, 2, 410, 395)]
    for top, left, height, width in boxes:
        for side in (40, 97, 176):
            view = View(top, left, height, width, side, side, 0, 0, side, side, True)
            exact, scaled = native.view_jpeg(data, view), native.view_jpeg(data, view._replace(scaled=True))
            assert not np.array_equal(exact, scaled)
            assert psnr(scaled, exact) > 36


@built
def test_only_large_boxes_of_large_images_are_decoded_smaller() -> None:
    small, large = jpeg(PHOTO), jpeg(np.kron(PHOTO, np.ones((2, 2, 1), np.uint8)))
    for data, view in (
        (small, View(0, 0, 427, 640, 100, 100, 0, 0, 100, 100)),  # no side of 800 px
        (large, View(0, 0, 359, 800, 180, 180, 0, 0, 180, 180)),  # less than twice the result on one side
        (large, View(7, 7, 60, 60, 60, 60, 0, 0, 60, 60)),
    ):
        assert np.array_equal(native.view_jpeg(data, view), native.view_jpeg(data, view._replace(scaled=True)))


@built
def test_scaled_decoding_is_never_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = EvaluationPipeline(256, 224).plan(1000, 900, 224)
    assert not view.scaled and EvaluationPipeline(256, 224, "native_scaled").plan(1000, 900, 224).scaled
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    native._library.cache_clear()
    try:
        with pytest.raises(ConfigError, match="native_scaled is not built here"):
            load([str(ROOT / "yamls/digits.yaml"), "train_dataset.decoder=native_scaled"])
    finally:
        monkeypatch.undo()
        native._library.cache_clear()
