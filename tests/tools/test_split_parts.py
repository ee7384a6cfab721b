"""Parts of tools.split: which images are near-duplicates, and which are for evaluation."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photos import photo_crops
from tools.split.allotment import TooFew, allot
from tools.split.duplicates import NEIGHBORS, groups
from tools.split.looking import thumbnail
from tools.split.source import _same_but_for_case


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    """Return an image as JPEG."""
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        return file.getvalue()


def grouped(images: list[Image.Image]) -> list[int]:
    """Return the groups of images."""
    thumbnails = np.stack([thumbnail(encoded(image)) for image in images])
    return groups(np.arange(len(images), dtype=np.uint64), thumbnails, lambda _: None).tolist()


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Crops of photographs, 64 px each, that share no pixel."""
    folder = photo_crops(tmp_path_factory.mktemp("crops") / "crops", per_class=24, size=64)
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*/*"))]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda image: Image.open(io.BytesIO(encoded(image, 35))),
    "half the size": lambda image: image.resize((32, 32), Image.Resampling.BILINEAR),
    "other sides": lambda image: image.resize((90, 70), Image.Resampling.BICUBIC),
    "cropped": lambda image: image.crop((3, 1, 62, 63)),
    "brighter": lambda image: image.point(lambda value: min(255, int(value * 1.1 + 8))),
    "gray": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found(change: str, crops: list[Image.Image]) -> None:
    """Nine in ten at least, here: the rest are crops with next to no structure."""
    found = grouped([*crops, *map(CHANGES[change], crops)])
    half = len(crops)
    assert sum(found[place] == found[half + place] for place in range(half)) >= 0.9 * half
    assert sum(found[place] != place for place in range(half)) == 0  # none with another crop


def test_different_images_are_not_joined(crops: list[Image.Image]) -> None:
    """Also where all are alike at first sight: the scans of digits; flat and mirrored images."""
    from sklearn.datasets import load_digits

    digits = [Image.fromarray((digit * 15).astype(np.uint8)).resize((32, 32)) for digit in load_digits().images[:300]]
    assert len(set(grouped(digits))) > 0.8 * len(digits)
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in crops]
    assert len(set(grouped([*crops, *mirrored]))) >= 2 * len(crops) - 2
    flat = [Image.new("RGB", (40, 40), (shade, shade, shade)) for shade in range(0, 250, 10)]
    assert len(set(grouped(flat))) == len(flat)


def test_more_copies_than_neighbors(crops: list[Image.Image]) -> None:
    """A series longer than the number of neighbors that are looked at is one group."""
    frames = [crops[3].crop((shift, 0, 44 + shift, 44)) for shift in range(2 * NEIGHBORS)]
    assert set(grouped([*frames, *crops[8:]])[: len(frames)]) == {0}


def test_one_and_no_image(crops: list[Image.Image]) -> None:
    assert grouped(crops[:1]) == [0]
    for thumbnails in (None, np.zeros((0, 32, 32), np.uint8)):
        with warnings.catch_warnings(action="error"):
            assert groups(np.zeros(0, np.uint64), thumbnails, lambda _: None).tolist() == []


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(4))
def test_shares_and_groups(share: float, seed: int) -> None:
    """Every class is on both sides, no group is, and the counts are those asked for if groups are small."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), rng.integers(4, 60, 6))
    digests = rng.integers(0, 2**63, len(labels), dtype=np.uint64)
    joined = np.arange(len(labels))
    for place in np.flatnonzero(rng.random(len(labels) - 1) < 0.2) + 1:
        if labels[place] == labels[place - 1] and joined[place - 1] == place - 1:
            joined[place] = place - 1  # pairs
    is_val = allot(labels, joined, digests, 6, share, seed)
    assert all(len(set(is_val[joined == group])) == 1 for group in joined)
    counts = np.bincount(labels)
    wanted = np.clip(np.floor(counts * share + 0.5), 1, counts - 1)
    assert np.abs(np.bincount(labels[is_val], minlength=6) - wanted).max() <= 1
    assert (is_val == allot(labels, joined, digests, 6, share, seed)).all()
    assert (is_val != allot(labels, joined, digests, 6, share, seed + 9)).any()


def test_names_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    labels, digests = np.repeat([0, 1], 20), rng.integers(0, 2**63, 40, dtype=np.uint64)
    other = np.concatenate([rng.permutation(20), 20 + rng.permutation(20)])
    first = allot(labels, np.arange(40), digests, 2, 0.3, 17)
    assert (allot(labels, np.arange(40), digests[other], 2, 0.3, 17) == first[other]).all()


def test_large_groups() -> None:
    """A class of two groups larger than its share has the smaller one in val/; a single group is too few."""
    digests = np.arange(20, dtype=np.uint64)
    labels, joined = np.array([0] * 10 + [1] * 10), np.arange(20)
    joined[:6], joined[6:10] = 0, 6
    is_val = allot(labels, joined, digests, 2, 0.1, 17)
    assert is_val[6:10].all() and not is_val[:6].any() and is_val[10:].sum() == 1
    joined[6:10] = 0
    with pytest.raises(TooFew) as error:
        allot(labels, joined, digests, 3, 0.1, 17)
    assert error.value.labels == [0, 2]


def test_thumbnails_of_large_and_odd_images(tmp_path: Path, crops: list[Image.Image]) -> None:
    """A large JPEG is decoded at a fraction of its size, with nearly the same thumbnail; any mode becomes gray."""
    small, large = crops[10], crops[10].resize((1024, 1024), Image.Resampling.BICUBIC)
    difference = np.abs(thumbnail(encoded(small)).astype(int) - thumbnail(encoded(large)))
    assert difference.mean() < 2
    for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.tif"
        image = Image.new("I;16", (20, 10)) if mode == "I;16" else small.convert(mode)
        image.save(path)
        assert thumbnail(path.read_bytes()).shape == (32, 32)


def test_classes_that_look_the_same() -> None:
    assert _same_but_for_case(["caf\u00e9", "cafe\u0301", "b", "C", "c "]) == [
        "Are these one class? Their names differ only in case, spaces or how accents are encoded: caf\u00e9 and "
        "cafe\u0301, C and c ."
    ]
