"""Recomputed BatchNorm statistics: torch's values over known images, without side effects on training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from composer.core import DataSpec, Event
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from data import build_imagenet_dataspec
from loaders.images.transforms import NormalizationFn, TrainingPipeline, collate
from loaders.sampler import EpochSampler
from loaders.storage.dali import DaliLoader
from loaders.storage.synthetic import SyntheticDataset
from loaders.workers import WorkerLoader
from recipes.batchnorm_statistics import BatchNormStatistics, FirstImages, copied_loader, recompute
from tests.algorithms.tiny import Recorder, equal, trainer, weights

BATCH = 8


def spec(folder: Path, workers: int = 0, size_at: Callable[[int, int], int] | None = None) -> DataSpec:
    """Build the 48 training images in batches of eight."""
    built = build_imagenet_dataspec(str(folder), False, BATCH, crop_size=16, seed=3, num_workers=workers)
    built.dataloader.sampler.size_at = size_at
    return built


def network() -> nn.Module:
    """Build two BatchNorms, one with momentum=None, and a dropout that must not draw random numbers."""
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(convolutions, nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4, momentum=None))


def batches(*sizes: int) -> list[Tensor]:
    """Return random images with a different mean in each batch."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 10, 10, generator=generator) * (n + 1) + n for n, size in enumerate(sizes)]


def test_statistics_equal_update_bns():
    """Bitwise for batches of equal size; modes, momenta and random state are unchanged."""
    model, other = network(), network()
    model[0][1].running_mean.fill_(float("nan"))
    model.train()
    model[0][3].eval()
    before = torch.get_rng_state()
    recompute(model, batches(6, 6, 6, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert [module.training for module in model[0]] == [True, True, True, False]
    assert (model[0][1].momentum, model[2].momentum) == (0.1, None)
    other[0][3].p = 0.0
    update_bn(batches(6, 6, 6, 6), other)
    assert equal(weights(model), weights(other))


def test_every_image_has_the_same_weight():
    """Even in a small last batch, which torch's update_bn weights like a full one."""
    model = network()
    parts = batches(6, 6, 2)
    with torch.no_grad():
        means = [model[0][0](part).mean((0, 2, 3)) for part in parts]
    recompute(model, parts)
    expected = (6 * means[0] + 6 * means[1] + 2 * means[2]) / 14
    torch.testing.assert_close(model[0][1].running_mean, expected)


def test_a_network_without_batchnorm_is_skipped():
    recompute(nn.Linear(2, 2), (pytest.fail("loaded") for _ in range(1)))


@pytest.mark.parametrize("count, kept", [(1, 8), (23, 16), (24, 24), (1000, 48)])
def test_the_first_images_of_the_first_epoch(count: int, kept: int, image_folder: Path):
    """Whole batches as training sees them; the data set keeps its epoch and its position to resume from."""
    dataset = spec(image_folder).dataloader.dataset
    first_epoch = list(EpochSampler(dataset, shuffle=True, drop_last=True, batch_size=BATCH))
    dataset.epoch = 5
    dataset.load_state_dict({"epoch": 0, "sample_in_epoch": 16, "size": 48})
    sampler = FirstImages(dataset, count, BATCH)
    assert list(sampler) == first_epoch[:kept] and len(sampler) == kept
    sampler.size = 12
    assert list(sampler) == [(*key, 12) for key in first_epoch[:kept]]
    assert dataset.epoch == 5 and dataset.take_resume(0) == 16


@pytest.mark.slow
def test_no_training_batch_is_lost(image_folder: Path):
    """With persistent workers, in mid-epoch, twice, at different sizes."""
    whole = [(images.clone(), labels.clone()) for images, labels in spec(image_folder).dataloader]
    train = spec(image_folder, workers=1).dataloader
    copied = copied_loader(train, FirstImages(train.dataset, 24, BATCH))
    seen, pools = [], []
    for batch in train:
        seen.append(batch)
        if len(seen) in (2, 4):
            copied.sampler.size = 8 * len(seen)
            pools.append([images for images, _ in copied])
    assert len(seen) == len(whole) == 6
    for (images, labels), (expected, classes) in zip(seen, whole, strict=True):
        assert torch.equal(images, expected) and torch.equal(labels, classes)
    assert [[tuple(images.shape[1:]) for images in pool] for pool in pools] == [[(3, n, n)] * 3 for n in (16, 32)]
    assert all(torch.equal(images, expected) for images, (expected, _) in zip(pools[0], whole[:3], strict=True))


def test_other_kinds_of_loaders(image_folder: Path):
    """Synthetic batches stay shared, and DALI gets the sizes."""
    made = SyntheticDataset("train", TrainingPipeline(-1, 16), 3)
    train: WorkerLoader = build_imagenet_dataspec("", False, BATCH, crop_size=16, storage="synthetic").dataloader
    copied = copied_loader(train, FirstImages(made, 16, BATCH))
    assert [images.data_ptr() for images, _ in copied] == [next(iter(train))[0].data_ptr()] * 2
    dataset = spec(image_folder).dataloader.dataset
    sampler = EpochSampler(dataset, shuffle=True, drop_last=True, batch_size=BATCH)
    copied = copied_loader(DaliLoader(dataset, BATCH, sampler, True, 1), FirstImages(dataset, 16, BATCH))
    copied.sampler.size = 12
    assert [images.shape for images, _ in copied] == [(BATCH, 3, 12, 12)] * 2


@pytest.mark.slow
def test_a_runs_statistics(image_folder: Path):
    """Computed from normalized images at the current size, in training's microbatches, for the current weights."""
    found = []

    def look(state) -> None:
        statistics.recompute(state)
        found.append((weights(state.model.module), state.timestamp.batch.value))

    statistics = BatchNormStatistics(24)
    data = spec(image_folder, size_at=lambda epoch, batch: 16 if epoch == 0 and batch < 4 else 32)
    run = trainer(
        train_loader=data,
        duration="6ba",
        device_train_microbatch_size=4,
        callbacks=[Recorder(Event.BATCH_END, lambda state: state.timestamp.batch in (2, 5) and look(state))],
    )
    run.fit()
    dataset, order = data.dataloader.dataset, FirstImages(data.dataloader.dataset, 24, BATCH)
    module = run.state.model.module
    for (held, batch), size in zip(found, (16, 32), strict=True):
        assert batch == (2 if size == 16 else 5)
        order.size = size
        images, _ = NormalizationFn()(collate([dataset[key] for key in order]))
        module.load_state_dict(held)
        update_bn(images.split(4), module)
        assert equal(held, weights(module)), size
        assert all(tensor.isfinite().all() for tensor in held.values())


@pytest.mark.slow
def test_a_run_that_only_evaluates_keeps_what_was_loaded(image_folder: Path):
    run = trainer(train_loader=spec(image_folder))
    run.state.train_dataloader = None
    before = weights(run)
    BatchNormStatistics(24).recompute(run.state)
    assert equal(before, weights(run))
