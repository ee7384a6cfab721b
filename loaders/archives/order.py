"""The order of images that are expensive to read one by one: a row group or a stretch of gzip is read for each."""

from __future__ import annotations

import numpy as np

from loaders.archives.catalog import Catalog

WINDOW = 32  # groups whose images are mixed with each other
_SEED = 0


def is_mixed(labels: np.ndarray) -> bool:
    """Whether classes alternate about as they do in shuffled images, given at least two of them."""
    if len(labels) < 2:
        return True
    shares = np.bincount(labels) / len(labels)
    by_chance = float(np.sum(shares**2))
    alike = float(np.mean(labels[1:] == labels[:-1]))
    return alike <= 0.5 + by_chance / 2 or by_chance == 1.0


def near(catalog: Catalog, groups: np.ndarray, window: int = WINDOW) -> Catalog:
    """Return the images in an order for training that reads each group, int64 [N], few times.

    That is their own order if it mixes classes. Otherwise, groups are shuffled, and the images of each `window` of
    them, WINDOW at most.
    """
    if not len(catalog) or is_mixed(catalog.labels):
        return catalog
    random = np.random.default_rng(_SEED)
    _, group = np.unique(groups, return_inverse=True)
    rank = random.permutation(int(group.max()) + 1)[group]
    return catalog.take(np.lexsort((random.random(len(rank)), rank // min(window, WINDOW))))
