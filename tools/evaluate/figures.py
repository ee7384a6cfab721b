"""From what a network says of every image to figures: accuracy, calibration, classes, confusions, mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Answers:
    """What a network says of N images, in the data set's order.

    Attributes:
        predicted: the class that it takes each for, int64 [N].
        confidence: the probability that it gives to that class, float64 [N], 0 to 1.
        in_top5: whether the true class is among its first five, bool [N].
        losses: softmax cross entropy of the true class, float64 [N].
    """

    predicted: np.ndarray
    confidence: np.ndarray
    in_top5: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Pass:
    """All images, looked at once.

    Attributes:
        size: side of the square that the network saw, in pixels.
        labels: the true classes, int64 [N].
        plain: the answers to the images as they are.
        flipped: those to the mean of the probabilities of each image and its mirror image; None if not asked for.
    """

    size: int
    labels: np.ndarray
    plain: Answers
    flipped: Answers | None

    @property
    def right(self) -> np.ndarray:
        """Which images are taken for what they are, bool [N]."""
        return self.plain.predicted == self.labels


@dataclass(frozen=True)
class Accuracy:
    """The figures of a pass: top-1 and top-5 in per cent, and the mean loss."""

    top1: float
    top5: float
    loss: float


def accuracy(labels: np.ndarray, answers: Answers) -> Accuracy:
    """The mean over all images."""
    right = answers.predicted == labels
    return Accuracy(100 * float(right.mean()), 100 * float(answers.in_top5.mean()), float(answers.losses.mean()))


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above `low` and at most `high`; the means are None where there are none."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None

    @property
    def gap(self) -> float:
        """The distance of confidence and accuracy, 0 to 1."""
        return 0.0 if self.confidence is None or self.accuracy is None else abs(self.confidence - self.accuracy)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[Bin]:
    """How often the network is right, by how sure it is.

    Args:
        confidence: float [N], 0 to 1.
        right: bool [N].
        bins: how many, all of one width.
    """
    # Borders as they are written out: 3 / 15 * 15 would be above 3.
    borders = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(borders, confidence, side="left") - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values.astype(float), minlength=bins) for values in (confidence, right)]
    means = [[float(total / n) if n else None for total, n in zip(part, images, strict=True)] for part in sums]
    return [
        Bin(float(borders[b]), float(borders[b + 1]), int(images[b]), means[0][b], means[1][b]) for b in range(bins)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy, in per cent points.

    Each bin counts by its images.
    """
    return 100 * sum(b.images * b.gap for b in bins) / sum(b.images for b in bins)


@dataclass(frozen=True)
class ClassFigures:
    """One class: its images, and top-1 and top-5 of them in per cent, which are None where there are none."""

    name: str
    images: int
    top1: float | None
    top5: float | None


def per_class(result: Pass, names: list[str]) -> list[ClassFigures]:
    """The figures of every class, by label."""
    images = _counts(result.labels, len(names))
    hits = [_counts(result.labels[hit], len(names)) for hit in (result.right, result.plain.in_top5)]
    return [
        ClassFigures(name, n, *(100 * hit[label] / n if n else None for hit in hits))
        for label, (name, n) in enumerate(zip(names, images, strict=True))
    ]


def _counts(labels: np.ndarray, classes: int) -> list[int]:
    return np.bincount(labels, minlength=classes).tolist()


def worst(classes: list[ClassFigures], most: int) -> list[ClassFigures]:
    """The classes with the lowest top-1, those of more images first; without such as have no mistake."""
    wrong = [one for one in classes if one.top1 is not None and one.top1 < 100]
    return sorted(wrong, key=lambda one: (one.top1, -one.images, one.name))[:most]


@dataclass(frozen=True)
class Confusion:
    """How often images of one class were taken for another: a count, and the share of the class, 0 to 1."""

    true: str
    predicted: str
    count: int
    share: float


def confusions(result: Pass, names: list[str]) -> list[Confusion]:
    """Every pair of classes that was confused, the most frequent first."""
    images, wrong = _counts(result.labels, len(names)), ~result.right
    pairs = result.labels[wrong] * len(names) + result.plain.predicted[wrong]
    pairs, counts = np.unique(pairs, return_counts=True)
    found = []
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        true, predicted = divmod(pair, len(names))
        found.append(Confusion(names[true], names[predicted], count, count / images[true]))
    return sorted(found, key=lambda one: (-one.count, -one.share, one.true, one.predicted))


def mistakes(result: Pass, most: int) -> list[int]:
    """The numbers of the wrongly classified images, the most confident answers first, at most so many."""
    wrong = np.flatnonzero(~result.right)
    return wrong[np.argsort(-result.plain.confidence[wrong], kind="stable")][:most].tolist()


@dataclass(frozen=True)
class Findings:
    """Everything that is known of one pass."""

    result: Pass
    names: list[str]  # of the classes, by label
    plain: Accuracy
    flipped: Accuracy | None
    classes: list[ClassFigures]
    confusions: list[Confusion]
    bins: list[Bin]
    calibration_error: float  # in per cent points


def findings(result: Pass, names: list[str]) -> Findings:
    """All figures of a pass.

    Args:
        result: the pass.
        names: of the classes, by label.
    """
    bins = reliability(result.plain.confidence, result.right)
    return Findings(
        result,
        names,
        accuracy(result.labels, result.plain),
        accuracy(result.labels, result.flipped) if result.flipped else None,
        per_class(result, names),
        confusions(result, names),
        bins,
        calibration_error(bins),
    )
