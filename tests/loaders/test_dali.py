"""DALI decodes; everything else about a batch equals the other kinds of storage."""

import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from composer.core import DataSpec
from PIL import Image
from sklearn.datasets import load_sample_images

from common.errors import DataError
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline, collate
from loaders.sampler import EpochSampler
from loaders.storage.dali import DaliLoader, encoded, require_dali
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.streaming import ShardDataset
from tests.image_files import make_mds
from tests.loaders.jpegs import save_odd_images
from tests.runs import ROOT, pretend_gpu

SIZES = ((640, 427), (375, 500), (333, 222), (240, 320), (120, 180), (61, 47))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs in six sizes, 4:4:4, 4:2:2 and 4:2:0, some progressive: 36 images each in train/ and val/."""
    root = tmp_path_factory.mktemp("photographs")
    for name, pixels in zip(("flower", "temple"), load_sample_images().images, strict=True):
        (root / "train" / name).mkdir(parents=True)
        for number, size in enumerate(SIZES):
            image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            for sampling in range(3):
                options = {"quality": 85 + 5 * sampling, "progressive": number == sampling}
                image.save(root / f"train/{name}/{number}{sampling}.jpg", subsampling=sampling, **options)
    shutil.copytree(root / "train", root / "val")
    return root


def dali(
    dataset: ImageDataset,
    batch_size: int = 8,
    workers: int = 2,
    epoch: int = 0,
    world: tuple[int, int] = (1, 0),
    size_at: Callable[[int, int], int] | None = None,
) -> DaliLoader:
    """Build a loader of one rank's share, shuffled if the data set crops at random."""
    train = dataset.pipeline.random
    options = {"shuffle": train, "drop_last": train, "batch_size": batch_size}
    sampler = EpochSampler(dataset, world_size=world[0], rank=world[1], **options)
    sampler.size_at = size_at
    sampler.set_epoch(epoch)
    return DaliLoader(dataset, batch_size, sampler, drop_last=train, num_workers=workers)


def train_set(root: Path, resize_size: int = -1, crop_size: int = 64, seed: int = 3) -> ImageFolderDataset:
    """Open the photographs with random crops."""
    return ImageFolderDataset(root, "train", TrainingPipeline(resize_size, crop_size), seed)


def pairs(loader: DaliLoader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each batch's images and our own decoder's for the same keys; check labels and format."""
    batches = []
    for keys, (images, labels) in zip(list(loader.batch_sampler), loader, strict=True):
        expected, expected_labels = collate([loader.dataset[key] for key in keys])
        assert images.shape == expected.shape and images.is_contiguous(memory_format=torch.channels_last)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64) and torch.equal(labels, expected_labels)
        batches.append((images, expected))
    assert len(batches) == len(loader)
    return batches


def differences(loader: DaliLoader) -> tuple[torch.Tensor, int]:
    """Return each image's PSNR in dB, and the largest difference inside the outermost rows and columns."""
    images, expected = (torch.cat(side).float() for side in zip(*pairs(loader), strict=True))
    error = (images - expected).abs()
    psnr = 10 * torch.log10(255**2 / error.square().flatten(1).mean(1).clamp_min(1e-9))
    return psnr, int(error[..., 1:-1, 1:-1].max())


@pytest.mark.parametrize(("resize_size", "crop_size", "most"), [(-1, 176, 1), (-1, 64, 1), (128, 96, 2)])
def test_training_images(photographs: Path, resize_size: int, crop_size: int, most: int) -> None:
    """Measured: mean PSNR 54.6 to 56.4 dB, minimum 50.5 dB.

    At the border, DALI's filter repeats the last pixel, and torch's (and PIL's) omits missing ones; there the images
    differ by up to 20. With resize_size an image is resized twice.
    """
    psnr, largest = differences(dali(train_set(photographs, resize_size, crop_size)))
    assert psnr.mean() > 54 and psnr.min() > 50
    assert largest <= most


def test_evaluation_images(photographs: Path) -> None:
    """Measured: mean PSNR 56.4 dB, minimum 55.4 dB, largest difference 1."""
    dataset = ImageFolderDataset(photographs, "val", EvaluationPipeline(128, 112), seed=0)
    psnr, largest = differences(dali(dataset, batch_size=10))
    assert len(psnr) == 36 and psnr.min() > 54 and largest <= 1
    # Without resizing, images are equal, even around images smaller than the crop.
    whole = ImageFolderDataset(photographs, "val", EvaluationPipeline(-1, 201), seed=0)
    assert all(torch.equal(images, expected) for images, expected in pairs(dali(whole)))


def test_odd_images_have_pils_colors(tmp_path: Path) -> None:
    save_odd_images(tmp_path / "val/odd")
    dataset = ImageFolderDataset(tmp_path, "val", EvaluationPipeline(-1, 48), seed=0)
    ((images, expected),) = pairs(dali(dataset, batch_size=16))
    assert len(images) == 15
    for number, (image, ours) in enumerate(zip(images, expected, strict=True)):
        with Image.open(dataset.path_of(number)) as opened:
            opened = opened.convert("RGBA") if "transparency" in opened.info else opened
            pil = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(image, ours) and torch.equal(image[:, 4:44], pil[:, :, 6:54]), dataset.name_of(number)


def test_ordinary_jpegs_are_left_to_dali(photographs: Path) -> None:
    plain, progressive = ((photographs / "val/flower" / name).read_bytes() for name in ("01.jpg", "00.jpg"))
    data, height, width = encoded(plain)
    assert data.tobytes() == plain and (height, width) == (427, 640)
    assert encoded(progressive)[0].tobytes() != progressive, "DALI does not notice damaged scans"


def test_shards_and_folders_give_equal_batches(photographs: Path, tmp_path: Path) -> None:
    make_mds(photographs / "val", tmp_path / "val", size_limit=300_000)
    pipeline = EvaluationPipeline(128, 112)
    shards = ShardDataset(str(tmp_path), str(tmp_path), "val", pipeline, seed=0)
    folder = ImageFolderDataset(photographs, "val", pipeline, seed=0)
    for ours, theirs in zip(dali(shards, workers=3), dali(folder), strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_batches_are_a_function_of_seed_and_epoch(photographs: Path) -> None:
    """Independent of the number of threads; the global random generators are not used."""
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    reference = list(dali(train_set(photographs), workers=1, epoch=1))
    for workers in (2, 5):
        for batch, expected in zip(dali(train_set(photographs), workers=workers, epoch=1), reference, strict=True):
            assert all(map(torch.equal, batch, expected))
    for other in dali(train_set(photographs)), dali(train_set(photographs, seed=4), epoch=1):
        assert not any(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(other, reference, strict=True))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_resumed_batches_are_the_same(photographs: Path) -> None:
    loader = dali(train_set(photographs), epoch=2)
    whole = list(loader)
    resumed = train_set(photographs)
    resumed.load_state_dict(loader.dataset.state_dict(16, True))
    rest = list(again := dali(resumed, epoch=2))
    assert len(whole) == len(again) == 4 and len(rest) == 2
    for batch, expected in zip(rest, whole[2:], strict=True):
        assert all(map(torch.equal, batch, expected))
    assert len(list(again)) == 4, "the next epoch must be complete"


def test_two_ranks_share_the_images(photographs: Path) -> None:
    alone = dali(train_set(photographs), batch_size=12)
    ranks = [dali(train_set(photographs), batch_size=6, world=(2, rank)) for rank in range(2)]
    for (images, labels), *shares in zip(alone, *ranks, strict=True):
        for rank, (part, part_labels) in enumerate(shares):
            assert torch.equal(images[rank::2], part) and torch.equal(labels[rank::2], part_labels)


def test_copies_of_an_image_are_cropped_anew(photographs: Path) -> None:
    loader = dali(dataset := train_set(photographs))
    dataset.repeats = 3
    for images, expected in pairs(loader):
        assert (images.float() - expected)[..., 1:-1, 1:-1].abs().max() <= 1
        assert not torch.equal(images[0], images[1])


def test_images_grow_at_the_requested_batch(photographs: Path) -> None:
    loader = dali(train_set(photographs), epoch=1, size_at=lambda epoch, batch: 31 + epoch + max(0, batch - 1) * 16)
    grown = pairs(loader)
    assert [images.shape[-1] for images, _ in grown] == [32, 32, 48, 64]
    for images, expected in grown:
        assert (images.float() - expected)[..., 1:-1, 1:-1].abs().max() <= 1


def test_composer_accepts_the_loader(photographs: Path) -> None:
    loader = dali(train_set(photographs), batch_size=5)
    assert DataSpec(loader).num_samples == 36 and len(loader) == 7
    assert {len(labels) for _, labels in loader} == {5}
    evaluation = ImageFolderDataset(photographs, "val", EvaluationPipeline(-1, 16), seed=0)
    assert [len(labels) for _, labels in dali(evaluation)] == [8, 8, 8, 8, 4]


def test_it_decodes_where_the_run_computes(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With device=cpu on a machine with a GPU, which would fail here; with device=gpu it is DALI that uses the GPU."""
    pretend_gpu(monkeypatch)
    options = {"storage": "dali", "crop_size": 32, "num_workers": 1}
    spec = build_imagenet_dataspec(photographs, False, 8, device="cpu", **options)
    images, _ = next(iter(spec.dataloader))
    assert images.device.type == "cpu" and spec.dataloader.device == "cpu"
    for gpu in ({"device": "gpu"}, {}):
        assert build_imagenet_dataspec(photographs, False, 8, **gpu, **options).dataloader.device == "mixed"


def test_unsupported_settings_are_reported_at_once(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformed = ImageFolderDataset(photographs, "train", TrainingPipeline(-1, 32, [torch.clone]), seed=0)
    with pytest.raises(ValueError, match="image_transforms"):
        dali(transformed)
    if not torch.cuda.is_available():
        with pytest.raises(DataError, match="needs a GPU"):
            require_dali("mixed")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)  # makes the import fail
    for cuda, lock, package in (
        ("12.6", "constraints.txt", "nvidia-dali-cuda120==2.4.0"),
        ("13.0", "constraints-next.txt", "nvidia-dali-cuda130==2.4.0"),
        (None, "constraints.txt", "nvidia-dali-cuda120==2.4.0"),  # torch without CUDA: either decodes on the CPU
    ):
        monkeypatch.setattr("torch.version.cuda", cuda)
        with pytest.raises(DataError, match=re.escape(f"needs NVIDIA DALI: pip install -c {lock} {package}")):
            dali(train_set(photographs))
        assert package in (ROOT / lock).read_text().splitlines()
