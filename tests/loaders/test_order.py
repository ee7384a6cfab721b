"""Order and augmentation depend on seed, epoch and sample, not on workers, ranks or interruptions."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.images.transforms import EvaluationPipeline
from loaders.sampler import EpochSampler
from loaders.storage.sharded import SHUFFLE_BLOCK
from loaders.storage.streaming import ShardDataset


class Numbers(ImageDataset):
    """A data set with a length only."""

    def __init__(self, length: int, seed: int = 0) -> None:
        super().__init__(EvaluationPipeline(-1, 32), seed)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> tuple[bytes, int]:
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        return str(index)


def jitter(pixels):
    """Draw from all three global generators, as third-party transforms do."""
    shift = random.randrange(64) + np.random.randint(64) + int(torch.randint(64, ()))
    return pixels + shift % 256


def load(root: Path, epochs: tuple[int, ...] = (0,), **options) -> list[torch.Tensor]:
    """Return the tensors of all batches of some epochs."""
    options = {"is_streaming": False, "batch_size": 8, "crop_size": 16, "num_workers": 0, **options}
    spec = build_imagenet_dataspec(root, image_transforms=[jitter], **options)
    batches = []
    for epoch in epochs:
        spec.dataloader.sampler.set_epoch(epoch)
        batches += [tensor for batch in spec.dataloader for tensor in batch]
    return batches


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def order(dataset: ImageDataset, epoch: int = 0, world: int = 1, drop_last: bool = True) -> list[list[int]]:
    """Return the indices of each rank."""
    ranks = []
    for rank in range(world):
        sampler = EpochSampler(dataset, shuffle=True, drop_last=drop_last, world_size=world, rank=rank)
        sampler.set_epoch(epoch)
        ranks.append([index for _, index in sampler])
    return ranks


@pytest.mark.slow
def test_same_seed_same_batches_for_any_number_of_workers(folder: Path) -> None:
    reference = load(folder, epochs=(0, 1), seed=3)
    for workers in (0, 1, 2):
        assert same(reference, load(folder, epochs=(0, 1), seed=3, num_workers=workers))


def test_seeds_and_epochs_differ(folder: Path) -> None:
    first, second = load(folder, seed=3), load(folder, seed=4)
    assert not any(map(torch.equal, first[::2], second[::2]))
    assert not any(map(torch.equal, first[::2], load(folder, epochs=(1,), seed=3)[::2]))
    unshuffled = [load(folder, seed=seed, shuffle=False) for seed in (3, 4)]
    assert all(map(torch.equal, unshuffled[0][1::2], unshuffled[1][1::2])), "labels in stored order"
    assert not any(map(torch.equal, unshuffled[0][::2], unshuffled[1][::2])), "crops must depend on the seed"


@pytest.mark.slow
def test_global_generators_are_not_used(folder: Path) -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for workers in (0, 1):
        load(folder, num_workers=workers)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_plain_indices_work(folder: Path) -> None:
    dataset = build_imagenet_dataspec(folder, False, 8, crop_size=16, num_workers=0).dataloader.dataset
    image, label = dataset[5]
    assert image.shape == (3, 16, 16) and label == 0
    assert torch.equal(image, dataset[(0, 5)][0]) and not torch.equal(image, dataset[(1, 5)][0])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_counts_every_image_once(world: int) -> None:
    for length in (1, 2, 5, 21, 50):
        dataset = Numbers(length)
        samplers = [
            EpochSampler(dataset, shuffle=False, drop_last=False, world_size=world, rank=rank) for rank in range(world)
        ]
        ranks = [[index for _, index in sampler] for sampler in samplers]
        padding = samplers[0].total_size - length
        # Composer drops the last sample of the last `padding` ranks.
        kept = [rank[:-1] if number >= world - padding else rank for number, rank in enumerate(ranks)]
        assert sorted(index for rank in kept for index in rank) == list(range(length))
        assert {len(rank) for rank in ranks} == {len(samplers[0])}


def test_order_does_not_depend_on_the_world_size() -> None:
    dataset = Numbers(48)
    whole = order(dataset)[0]
    assert sorted(whole) == list(range(48)) and whole != sorted(whole)
    for world in (2, 3, 4):
        ranks = order(dataset, world=world)
        assert [index for step in zip(*ranks, strict=True) for index in step] == whole


@pytest.mark.parametrize("world", [1, 2, 4])
def test_resume_continues_at_the_sample(world: int) -> None:
    """Stopped after 16 samples of epoch 2 on two ranks, resumed on 1, 2 or 4."""
    dataset = Numbers(48, seed=5)
    whole = order(dataset, epoch=2)[0]
    assert dataset.epoch == 2
    state = dataset.state_dict(16, True)
    ranks = []
    for rank in range(world):
        resumed = Numbers(48, seed=5)
        resumed.load_state_dict(state)
        sampler = EpochSampler(resumed, shuffle=True, drop_last=True, world_size=world, rank=rank)
        assert len(sampler) == 48 // world, "len() must be that of a full epoch"
        sampler.set_epoch(2)
        ranks.append([index for _, index in sampler])
        sampler.set_epoch(3)
        assert len(list(sampler)) == 48 // world, "the next epoch must be complete"
        sampler.set_epoch(2)
        assert len(list(sampler)) == 48 // world, "a repeated epoch must be complete"
    assert [index for step in zip(*ranks, strict=True) for index in step] == whole[16:]


@pytest.mark.slow
def test_resumed_batches_are_the_same(folder: Path) -> None:
    for workers in (0, 2):
        spec = build_imagenet_dataspec(folder, False, 8, crop_size=16, seed=7, num_workers=workers)
        spec.dataloader.sampler.set_epoch(1)
        whole = list(spec.dataloader)
        state = spec.dataloader.dataset.state_dict(24, True)
        resumed = build_imagenet_dataspec(folder, False, 8, crop_size=16, seed=7, num_workers=workers)
        resumed.dataloader.dataset.load_state_dict(state)
        resumed.dataloader.sampler.set_epoch(1)
        rest = list(resumed.dataloader)
        assert len(rest) == 4 and len(resumed.dataloader) == 7
        for (images, labels), (expected, expected_labels) in zip(rest, whole[3:], strict=True):
            assert torch.equal(images, expected) and torch.equal(labels, expected_labels)


def test_checkpoints_of_other_data_are_rejected() -> None:
    dataset = Numbers(10)
    with pytest.raises(DataError, match="8 of 48 images, but this data set has 10"):
        dataset.load_state_dict(Numbers(48).state_dict(8, True))
    dataset.load_state_dict(Numbers(48).state_dict(0, True))  # at the start of an epoch there is no position to restore
    dataset.load_state_dict(None)
    assert dataset.take_resume(0) == 0


def test_streaming_shuffles_in_a_rolling_window(shards: Path) -> None:
    dataset = ShardDataset(str(shards), str(shards), "train", EvaluationPipeline(-1, 32), seed=0)
    assert sorted(order(dataset)[0]) == list(range(60)) and order(dataset)[0] != order(dataset, epoch=1)[0]
    # A large set: 2,000 shards of 640 images.
    dataset.samples = np.full(2000, 640)
    large = dataset.epoch_order(np.random.default_rng(0))
    assert np.array_equal(np.sort(large), np.arange(2000 * 640))
    assert len(np.unique(large[:2048] // 640)) < 100, "the first 2,048 images must come from few shards"
    assert len(np.unique(large[400_000:402_048] // 640)) > SHUFFLE_BLOCK / 640 * 0.8, "the window must grow"


def repeated(length: int, repeats: int, seed: int = 0) -> Numbers:
    dataset = Numbers(length, seed)
    dataset.repeats = repeats
    return dataset


@pytest.mark.parametrize(("world", "repeats"), [(1, 3), (2, 3), (4, 4), (8, 4)])
def test_repeated_images_are_dealt_out_as_by_timms_sampler(world: int, repeats: int) -> None:
    whole = order(Numbers(1000))[0]
    timm = RepeatAugSampler(range(1000), num_replicas=world, rank=0, shuffle=False, num_repeats=repeats)
    for rank in range(world):
        sampler = EpochSampler(repeated(1000, repeats), shuffle=True, drop_last=True, world_size=world, rank=rank)
        keys = list(sampler)
        assert len(keys) == len(sampler) == len(timm) == 768 // world
        assert world < repeats or len({key[1] for key in keys[:50]}) == 50, "copies go to different ranks"
        timm.rank = rank  # its order: that of the data set
        assert [whole[index] for index in timm] == [key[1] for key in keys]
        assert [key[3] for key in keys] == [(step * world + rank) % repeats for step in range(len(keys))]


def test_imagenets_epoch_of_repeated_images() -> None:
    """torchvision_v2's 1,251 steps of 8 x 128, and A1's and A2's 625 of 4 x 512."""
    for repeats, world, batch_size, steps in ((4, 8, 128, 1251), (3, 4, 512, 625)):
        sampler = EpochSampler(
            repeated(1_281_167, repeats), shuffle=True, drop_last=True, world_size=world, rank=0, batch_size=batch_size
        )
        assert len(sampler) // batch_size == steps
    assert repeated(100, 4).epoch_size == 100 and repeated(300, 4).epoch_size == 256


@pytest.mark.parametrize("world", [1, 2, 4])
def test_repeated_images_resume_at_the_copy(world: int) -> None:
    dataset = repeated(300, 3)
    sampler = EpochSampler(dataset, shuffle=True, drop_last=True, world_size=1, rank=0)
    whole, ranks = list(sampler), []
    assert len(set(whole)) == 256 and len({key[1] for key in whole}) == 86
    state = dataset.state_dict(56, True)
    for rank in range(world):
        resumed = repeated(300, 3)
        resumed.load_state_dict(state)
        ranks.append(list(EpochSampler(resumed, shuffle=True, drop_last=True, world_size=world, rank=rank)))
    assert [key for step in zip(*ranks, strict=True) for key in step] == whole[56:]
    with pytest.raises(DataError, match=r"shown 3 times, .* 1 times: resume with train_dataset\.repeats=3"):
        Numbers(300).load_state_dict(state)
    with pytest.raises(DataError, match="shown 1 times, but this run shows it 3 times"):
        repeated(300, 3).load_state_dict({**Numbers(300).state_dict(56, True), "repeats": 1})
    repeated(300, 3).load_state_dict(Numbers(300).state_dict(0, True))


def test_copies_of_an_image_are_cropped_anew(folder: Path) -> None:
    """The first as without repetitions; in batches as one by one."""
    spec = build_imagenet_dataspec(folder, False, 8, crop_size=16, num_workers=0, repeats=4)
    dataset, keys = spec.dataloader.dataset, list(spec.dataloader.sampler)[:8]
    assert len({key[1] for key in keys}) == 2
    images = next(iter(spec.dataloader))[0]
    assert torch.equal(images, torch.stack([dataset[key][0] for key in keys]))
    assert torch.equal(images[0], dataset[keys[0][:2]][0])
    for one in range(4):
        assert not any(torch.equal(images[one], images[other]) for other in range(one))
