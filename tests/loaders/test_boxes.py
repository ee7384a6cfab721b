"""The boxes of a batch equal those drawn one by one with torch, and never change from one version to the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from loaders.images import boxes, native
from loaders.images.boxes import draw_boxes, random_crop
from loaders.images.transforms import TrainingPipeline
from tests.loaders.jpegs import built

GOLDEN = [  # ((height, width), seed, smallest, hflip, crop)
    ((375, 500), 0, 0.08, True, (17, 80, 294, 343, 1)),
    ((375, 500), 1, 0.08, True, (71, 153, 272, 311, 1)),
    ((375, 500), 1, 0.08, False, (71, 153, 272, 311, 0)),
    ((333, 500), 4294967297, 0.25, True, (31, 145, 283, 324, 1)),
    ((2000, 3008), 9223372036854775807, 0.35, True, (7, 1373, 1886, 1518, 1)),
    ((500, 281), 6148914691236517205, 0.08, True, (142, 30, 260, 213, 0)),
    ((7, 900), 3, 0.08, True, (0, 445, 7, 9, 0)),
    ((900, 7), 4, 0.25, True, (445, 0, 9, 7, 0)),
    ((8, 900), 3, 0.08, True, (0, 444, 8, 11, 0)),
    ((900, 8), 4, 0.25, True, (444, 0, 11, 8, 0)),
    ((1, 1), 5, 0.08, True, (0, 0, 1, 1, 0)),
    ((400, 400), 8, 1.0, True, (0, 0, 400, 400, 1)),
    ((64, 200), 11, 0.9, True, (0, 57, 64, 85, 0)),
]
LONGEST = {"tiny": (4, 4), "photo": (700, 700), "strip": (40, 3000), "tower": (3000, 40), "huge": (65_000, 65_000)}


@pytest.fixture
def fresh_self_test() -> Iterator[None]:
    boxes._agrees_with_torch.cache_clear()
    yield
    boxes._agrees_with_torch.cache_clear()


def one_by_one(
    heights: np.ndarray, widths: np.ndarray, seeds: list[int], smallest: float, hflip: bool
) -> list[list[int]]:
    pipeline = TrainingPipeline(-1, 32, min_crop_area=smallest, hflip=hflip)
    return [
        [int(value) for value in pipeline.draw(height, width, torch.Generator().manual_seed(seed))]
        for height, width, seed in zip(heights.tolist(), widths.tolist(), seeds, strict=True)
    ]


def random_images(kind: str, count: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return heights, widths and seeds of 63 bits."""
    rng = np.random.default_rng(len(kind))
    heights, widths = (rng.integers(1, longest, count, endpoint=True) for longest in LONGEST[kind])
    return heights, widths, rng.integers(0, 2**63, count).tolist()


@pytest.mark.parametrize(("shape", "seed", "smallest", "hflip", "expected"), GOLDEN)
def test_boxes_never_change(
    shape: tuple[int, int], seed: int, smallest: float, hflip: bool, expected: tuple[int, ...]
) -> None:
    assert random_crop(*shape, smallest, hflip, torch.Generator().manual_seed(seed)) == expected
    height, width = np.array(shape)[:, None]
    assert draw_boxes(height, width, [seed], smallest, hflip).tolist() == [list(expected)]


@pytest.mark.parametrize(("smallest", "hflip"), [(0.08, True), (0.35, False), (0.9, True), (1.0, True), (1e-6, True)])
@pytest.mark.parametrize("kind", LONGEST)
def test_a_batch_equals_its_images(kind: str, smallest: float, hflip: bool) -> None:
    heights, widths, seeds = random_images(kind, 150)
    drawn = draw_boxes(heights, widths, seeds, smallest, hflip)
    assert drawn.dtype == np.int32 and drawn.tolist() == one_by_one(heights, widths, seeds, smallest, hflip)


def test_rounding_errors_change_no_box() -> None:
    """In boxes this large, float64 instead of torch's float32 would change about one in 300."""
    heights, widths, seeds = random_images("huge", 3000)
    assert draw_boxes(heights, widths, seeds, 0.08, True).tolist() == one_by_one(heights, widths, seeds, 0.08, True)


def test_any_batch_size_gives_the_same() -> None:
    heights, widths, seeds = random_images("photo", 19)
    drawn = draw_boxes(heights.astype(np.int32), widths.astype(np.uint16), seeds, 0.08, True)
    for count in (0, 1, 7, 8, 9, 16, 17):
        part = draw_boxes(heights[:count], widths[:count], seeds[:count], 0.08, True)
        assert part.shape == (count, 5) and np.array_equal(part, drawn[:count])


def test_torch_draws_large_integers_from_two_words() -> None:
    """Seed 1042 is one of the few with a box that fits."""
    heights = np.array([2**28 + 100_000, 100_000])
    drawn = draw_boxes(heights, heights[::-1], [1042, 1042], 0.0, True)
    assert drawn.tolist() == one_by_one(heights, heights[::-1], [1042, 1042], 0.0, True)
    assert drawn[:, 2:4].tolist() == [[84178, 71418]] * 2


@built
def test_few_boxes_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boxes._agrees_with_torch()
    seen = []
    monkeypatch.setattr(boxes, "random_crop", lambda *given: seen.append(given) or random_crop(*given))
    for kind, share in {"photo": 0.01, "strip": 0.01, "tower": 0.01, "huge": 0.4}.items():
        seen.clear()
        draw_boxes(*random_images(kind, 1000), 0.08, True)
        assert len(seen) <= share * 1000


@built
@pytest.mark.parametrize(
    "fault", [lambda words: words ^ 0x800000, lambda words: words + 1, lambda words: words[:, ::-1]]
)
def test_an_unknown_generator_is_left_to_torch(fault, monkeypatch: pytest.MonkeyPatch, fresh_self_test: None) -> None:
    words = native.random_words
    monkeypatch.setattr(native, "random_words", lambda *given: fault(words(*given)))
    assert not boxes._agrees_with_torch()
    heights, widths, seeds = random_images("photo", 50)
    assert draw_boxes(heights, widths, seeds, 0.08, True).tolist() == one_by_one(heights, widths, seeds, 0.08, True)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "random_words", None)
    heights, widths, seeds = random_images("photo", 50)
    assert draw_boxes(heights, widths, seeds, 0.08, True).tolist() == one_by_one(heights, widths, seeds, 0.08, True)


@built
def test_words_are_those_of_torch() -> None:
    """All 32 bits as numpy's legacy generator draws them, and the 27 that torch shows."""
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, *random_images("photo", 20)[2]]
    words = native.random_words(seeds, 32)
    for seed, row in zip(seeds, words, strict=True):
        assert row.tolist() == np.random.RandomState(seed % 2**32).randint(0, 2**32, 32, np.uint64).tolist()
        generator = torch.Generator().manual_seed(seed)
        shown = [int(torch.randint(0, 2**27, (1,), generator=generator)) for _ in row]
        assert (row % 2**27).tolist() == shown
    for count in (0, 1, 23):
        assert np.array_equal(native.random_words(seeds, count), words[:, :count])
    with pytest.raises(ValueError, match="33 random words of a seed"):
        native.random_words(seeds, 33)
