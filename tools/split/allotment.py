"""Decide which images are for evaluation: in every class the same share, and no group of duplicates on both sides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import xxhash


class TooFew(Exception):
    """Classes that cannot be on both sides; `labels` are theirs."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels
        super().__init__(f"labels {labels} have too few images")


def allot(
    labels: np.ndarray, groups: np.ndarray, digests: np.ndarray, classes: int, share: float, seed: int
) -> np.ndarray:
    """Return bool [N]: which images are for evaluation.

    An image's place in the random order depends on the seed and its own bytes alone, not on names or other images, so
    that most images stay on their side when others are added.

    Args:
        labels, groups, digests: of each image, [N]; images of equal `groups` stay together.
        classes: their number.
        share: the fraction of each class for evaluation, rounded to whole images, at least one on either side.
        seed: another one gives another split.

    Raises:
        TooFew: some classes have fewer than two groups of their own.
    """
    counts = np.bincount(labels, minlength=classes)
    wanted = np.clip((counts * share + 0.5).astype(int), 1, counts - 1)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    tallies = {group: Counter(labels[indices].tolist()) for group, indices in members.items()}
    places = np.array([xxhash.xxh3_64_intdigest(digest.tobytes(), seed) for digest in digests], np.uint64)
    order = sorted(members, key=lambda group: int(places[members[group]].min()))
    chosen: set[int] = set()
    held: Counter[int] = Counter()

    def leaves_some(group: int) -> bool:
        return all(held[label] + count < counts[label] for label, count in tallies[group].items())

    def choose(group: int) -> None:
        chosen.add(group)
        held.update(tallies[group])

    for group in order:
        after = {label: held[label] + count for label, count in tallies[group].items()}
        closer = sum(abs(held[label] - wanted[label]) - abs(total - wanted[label]) for label, total in after.items())
        if closer > 0 and leaves_some(group):
            choose(group)
    for label in [label for label in range(len(counts)) if not held[label]]:  # its groups are larger than its share
        own = [group for group in order if group not in chosen and tallies[group][label] and leaves_some(group)]
        if own and not held[label]:
            choose(min(own, key=lambda group: len(members[group])))
    if lacking := [label for label in range(len(counts)) if not held[label]]:
        raise TooFew(lacking)
    return np.isin(groups, list(chosen))
