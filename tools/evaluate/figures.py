"""Figures from a network's answers to all images: accuracy, calibration, classes, confusions, mistakes."""

from dataclasses import dataclass

import numpy as np

from loaders.class_names import shown

BINS = 15  # of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 in percent, and the mean loss."""

    top1: float
    top5: float
    loss: float


@dataclass(frozen=True)
class Answers:
    """A network's answers to N images, in the data set's order; each array is [N]."""

    predicted: np.ndarray  # class, int64
    confidence: np.ndarray  # probability of that class, float64, 0 to 1
    in_top5: np.ndarray  # whether the true class is among the first five, bool
    losses: np.ndarray  # softmax cross entropy of the true class, float64


@dataclass(frozen=True)
class Pass:
    """One evaluation of all images."""

    size: int  # side of the square that the network saw, in pixels
    labels: np.ndarray  # the true classes, int64 [N]
    plain: Answers  # to the images as they are
    flipped: Answers | None  # from the mean logits of each image and its mirror image; None if not asked for

    @property
    def right(self) -> np.ndarray:
        """Which images are classified correctly, bool [N]."""
        return self.plain.predicted == self.labels

    @property
    def accuracies(self) -> list[Accuracy]:
        """Those of the images as they are and, if asked for, with mirror images."""
        return [
            Accuracy(
                100 * float((answers.predicted == self.labels).mean()),
                100 * float(answers.in_top5.mean()),
                float(answers.losses.mean()),
            )
            for answers in (self.plain, self.flipped)
            if answers
        ]


@dataclass(frozen=True)
class Bin:
    """The images with a confidence above `low` and at most `high`; the means are None if there are none."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None

    @property
    def gap(self) -> float:
        """Distance between confidence and accuracy, 0 to 1."""
        return 0.0 if self.confidence is None or self.accuracy is None else abs(self.confidence - self.accuracy)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Return accuracy by confidence, in BINS of equal width, given float [N] from 0 to 1 and bool [N]."""
    # Not place = confidence * BINS: 3 / 15 * 15 is above 3.
    borders = np.arange(BINS + 1) / BINS
    place = np.clip(np.searchsorted(borders, confidence, side="left") - 1, 0, BINS - 1)
    bins = []
    for number, (low, high) in enumerate(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)):
        inside = place == number
        means = [float(values[inside].mean()) if inside.any() else None for values in (confidence, right)]
        bins.append(Bin(low, high, int(inside.sum()), *means))
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: the images' mean gap of confidence and accuracy, in percentage points."""
    return 100 * sum(b.images * b.gap for b in bins) / sum(b.images for b in bins)


@dataclass(frozen=True)
class ClassFigures:
    """One class: its number of images, and their top-1 and top-5 in percent; None if there are none."""

    name: str
    images: int
    top1: float | None
    top5: float | None


def per_class(result: Pass, names: list[str]) -> list[ClassFigures]:
    """Return the figures of every class, by label."""
    images = _counts(result.labels, len(names))
    hits = [_counts(result.labels[hit], len(names)) for hit in (result.right, result.plain.in_top5)]
    return [
        ClassFigures(name, n, *(100 * hit[label] / n if n else None for hit in hits))
        for label, (name, n) in enumerate(zip(names, images, strict=True))
    ]


def _counts(labels: np.ndarray, classes: int) -> list[int]:
    return np.bincount(labels, minlength=classes).tolist()


def worst(classes: list[ClassFigures], most: int) -> list[ClassFigures]:
    """Return the classes with the lowest top-1, those of more images first, without those that have no mistake."""
    wrong = [one for one in classes if one.top1 is not None and one.top1 < 100]
    return sorted(wrong, key=lambda one: (one.top1, -one.images, one.name))[:most]


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another: their number, and their share of the class, 0 to 1."""

    true: str
    predicted: str
    count: int
    share: float


def confusions(result: Pass, names: list[str]) -> list[Confusion]:
    """Return every pair of confused classes, the most frequent first."""
    images, wrong = _counts(result.labels, len(names)), ~result.right
    pairs = result.labels[wrong] * len(names) + result.plain.predicted[wrong]
    pairs, counts = np.unique(pairs, return_counts=True)
    found = []
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        true, predicted = divmod(pair, len(names))
        found.append(Confusion(names[true], names[predicted], count, count / images[true]))
    return sorted(found, key=lambda one: (-one.count, -one.share, one.true, one.predicted))


def mistakes(result: Pass, most: int) -> list[int]:
    """Return the indices of at most `most` wrongly classified images, the most confident answers first."""
    wrong = np.flatnonzero(~result.right)
    return wrong[np.argsort(-result.plain.confidence[wrong], kind="stable")][:most].tolist()


@dataclass(frozen=True)
class Findings:
    """All figures of one pass."""

    result: Pass
    names: dict[str, str]  # of each class, for people
    classes: list[ClassFigures]
    confusions: list[Confusion]
    bins: list[Bin]
    calibration_error: float  # in percentage points

    def shown(self, one: str) -> str:
        """Return a class with its name."""
        return shown(one, self.names[one])


def findings(result: Pass, classes: list[str], names: list[str] | None = None) -> Findings:
    """Return the figures of a pass over these classes, by label, which people call by these names."""
    bins = reliability(result.plain.confidence, result.right)
    called = dict(zip(classes, names or classes, strict=True))
    figures = per_class(result, classes), confusions(result, classes)
    return Findings(result, called, *figures, bins, calibration_error(bins))
