"""The published example's interface: same calls, same shapes."""

import sys
from pathlib import Path

import pytest
import torch
from composer.core import DataSpec

from common.errors import DataError
from data import build_imagenet_dataspec, check_dataloader
from tests.image_files import make_imagefolder


@pytest.mark.slow
@pytest.mark.parametrize("is_train", [True, False])
def test_batches_have_the_requested_shapes(image_folder: Path, is_train: bool) -> None:
    spec = build_imagenet_dataspec(
        str(image_folder), is_streaming=False, batch_size=2, is_train=is_train, shuffle=False, crop_size=16
    )
    assert isinstance(spec, DataSpec)
    batches = list(spec.dataloader)
    for images, labels in batches:
        assert images.shape == (2, 3, 16, 16) and images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (2,) and labels.dtype == torch.int64
    assert len(batches) == len(spec.dataloader) == (24 if is_train else 10)
    assert spec.dataloader.dataset.classes == ["cat", "dog", "person"]
    spec.dataloader._iterator._shutdown_workers()


def test_normalization_happens_in_microbatches(image_folder: Path) -> None:
    spec = build_imagenet_dataspec(image_folder, False, 4, is_train=False, crop_size=16, num_workers=0)
    batch = next(iter(spec.dataloader))
    assert spec.get_num_samples_in_batch(batch) == 4
    parts = spec.split_batch(batch, 2)
    images, labels = spec.microbatch_transforms(parts[1])
    assert len(parts) == 2 and torch.equal(labels, batch[1][2:])
    expected = batch[0][2:].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(images, (expected - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_resize_and_extra_transforms(image_folder: Path) -> None:
    seen = []

    def note(pixels):
        seen.append(pixels.shape)
        return pixels[:, :12, :12]

    spec = build_imagenet_dataspec(
        image_folder, False, 4, resize_size=40, crop_size=16, image_transforms=[note], num_workers=0
    )
    images, _ = next(iter(spec.dataloader))
    assert images.shape == (4, 3, 12, 12) and seen == [(3, 16, 16)] * 4
    spec = build_imagenet_dataspec(
        image_folder, False, 4, is_train=False, resize_size=40, crop_size=36, image_transforms=[note], num_workers=0
    )
    assert next(iter(spec.dataloader))[0].shape == (4, 3, 36, 36) and len(seen) == 4, "training only"


def test_evaluation_equals_torchvision(image_folder: Path) -> None:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    reference = ImageFolder(
        str(image_folder / "val"), transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32)])
    )
    spec = build_imagenet_dataspec(
        image_folder, False, 21, is_train=False, shuffle=False, resize_size=40, crop_size=32, num_workers=0
    )
    images, labels = next(iter(spec.dataloader))
    for number, (image, label) in enumerate(reference):
        assert torch.equal(images[number], transforms.functional.pil_to_tensor(image))
        assert int(labels[number]) == label


@pytest.mark.slow
def test_check_dataloader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    root = make_imagefolder(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["script.py", str(root)])
    check_dataloader()
    said = capsys.readouterr().out
    for expected in ("train", "val", "32x32", "[12, 3, 224, 224] uint8", "img/s", str(tmp_path / "contact_sheet.png")):
        assert expected in said
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000


def test_streaming_needs_a_cache_folder() -> None:
    with pytest.raises(ValueError, match="local=") as caught:
        build_imagenet_dataspec("s3://bucket/folder", is_streaming=True, batch_size=2)
    assert isinstance(caught.value, DataError)


def test_mistakes_are_sentences(image_folder: Path) -> None:
    with pytest.raises(DataError, match="no data set was named"):
        build_imagenet_dataspec("", False, 2)
    with pytest.raises(DataError, match="is_streaming=true"):
        build_imagenet_dataspec("s3://bucket/folder", False, 2)
    with pytest.raises(DataError, match="a batch of 64 images is larger than the data set of 48"):
        build_imagenet_dataspec(image_folder, False, 64)
