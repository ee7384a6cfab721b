"""Find near-duplicates: copies of an image that were re-encoded, resized, slightly cropped or brightened.

Each image is reduced to a gray thumbnail. Its nearest neighbors among all thumbnails are candidates, and a candidate
is a near-duplicate if it can be moved and stretched a little so that it agrees with the image almost everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32  # pixels of a thumbnail
NEIGHBORS = 8  # candidates per image: the work grows with them, and 8 suffice to connect a large group
_COARSE = 8  # side of what neighbors are searched by
_LIKELY = 0.75  # least cosine similarity of neighbors at that size
_ALIKE = 0.988  # least correlation of near-duplicates after alignment
_FARTHEST = 0.2  # shift, in halves of the image's side, and stretch of an alignment
_BORDER = 2 / SIDE  # not compared, in halves of the image's side: a blurred edge depends on what was cropped
_FLAT = 2.0  # standard deviation of gray values, of 255, below which an image shows nothing to compare
_STEPS = 4  # of the alignment
_ROWS, _PAIRS = 128, 1024  # computed at once: they bound the memory


def groups(digests: np.ndarray, thumbnails: np.ndarray | None, progress: Callable[[int], None]) -> np.ndarray:
    """Return, for each image, the index of the first image of its group; images of one group are duplicates.

    Args:
        digests: [N], equal for files of equal bytes.
        thumbnails: uint8 [N, SIDE, SIDE], gray; None to look for exact copies only.
        progress: called with the number of images whose neighbors are known.
    """
    _, first, twins = np.unique(digests, return_index=True, return_inverse=True)
    parents = first[twins]
    if thumbnails is not None and len(thumbnails):
        distinct = np.unique(parents)
        small = torch.from_numpy(thumbnails[distinct])
        for pairs in candidates(small, progress):
            for chunk in pairs.split(_PAIRS):
                alike = are_alike(small[chunk[:, 0]], small[chunk[:, 1]])
                for one, other in distinct[chunk[alike].numpy()]:
                    _join(parents, one, other)
    return np.array([_root(parents, index) for index in range(len(parents))], dtype=int)


def candidates(thumbnails: Tensor, progress: Callable[[int], None]) -> Iterator[Tensor]:
    """Yield pairs of indices, int64 [P, 2], the smaller first: each image with its nearest neighbors."""
    chunks = thumbnails[:, None].split(_PAIRS)  # as floats, all at once would take four times the memory
    small = torch.cat([F.avg_pool2d(chunk.float(), SIDE // _COARSE).flatten(1) for chunk in chunks])
    structured = torch.cat([chunk.flatten(1).float().std(1) > _FLAT for chunk in chunks])
    # What all images have in common, such as the white ground of scans, would make every pair look similar.
    small = small - small.mean(0)
    small = F.normalize(small - small.mean(1, keepdim=True))
    for start in range(0, len(small), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(small)))
        similar = small[rows] @ small.T
        similar[torch.arange(len(rows)), rows] = -1
        best, at = similar.topk(min(NEIGHBORS, len(small)))
        near = (best > _LIKELY) & structured[at] & structured[rows, None]
        pairs = torch.stack([rows[:, None].expand_as(at)[near], at[near]], 1)
        yield pairs.sort(1).values
        progress(int(rows[-1]) + 1)


def are_alike(one: Tensor, other: Tensor) -> Tensor:
    """Return bool [P]: whether `other` can be aligned with `one`, both uint8 [P, SIDE, SIDE].

    The alignment (two shifts, two stretches, brightness and contrast) is found by Gauss-Newton steps.
    """
    one, other = _blurred(one), _blurred(other)
    axis = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    is_inner = torch.maximum(x.abs(), y.abs()) < 1 - _BORDER
    change = torch.zeros(len(one), 4)  # shift x, shift y, stretch x, stretch y
    correlation = torch.zeros(len(one))
    for step in range(_STEPS + 1):
        grid_x = x * (1 + change[:, 2, None, None]) + change[:, 0, None, None]
        grid_y = y * (1 + change[:, 3, None, None]) + change[:, 1, None, None]
        moved = F.grid_sample(other[:, None], torch.stack([grid_x, grid_y], -1), align_corners=False)[:, 0]
        inside = (torch.maximum(grid_x.abs(), grid_y.abs()) < 1 - _BORDER) & is_inner
        correlation = torch.maximum(correlation, _correlation(one, moved, inside.float()))
        if step < _STEPS:
            change = (change + _step(one, moved, inside.float(), x, y)).clamp(-_FARTHEST, _FARTHEST)
    return correlation > _ALIKE


def _blurred(images: Tensor) -> Tensor:
    """Blur twice by 3 x 3: what is finer than a pixel of a thumbnail depends on where a crop starts."""
    images = images[:, None].float()
    for _ in range(2):
        images = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return images[:, 0]


def _step(one: Tensor, moved: Tensor, inside: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the change of [shift x, shift y, stretch x, stretch y] that brings `moved` closer to `one`."""
    by_y, by_x = torch.gradient(moved, spacing=2 / SIDE, dim=(1, 2))
    columns = torch.stack([by_x, by_y, x * by_x, y * by_y, moved, torch.ones_like(moved)], -1).flatten(1, 2)
    columns = columns * inside.flatten(1)[..., None]
    normal = columns.mT @ columns
    ridge = 1e-4 * normal.diagonal(dim1=1, dim2=2) + 1e-3
    solved = torch.linalg.solve(normal + torch.diag_embed(ridge), columns.mT @ (one * inside).flatten(1)[..., None])
    solved = solved[..., 0]
    return solved[:, :4] / solved[:, 4:5].clamp(min=0.1)


def _correlation(one: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Return the correlation of images [P, H, W] over the pixels where `inside` is 1."""
    weights = inside / inside.sum((1, 2), keepdim=True)
    one, other = (image - (image * weights).sum((1, 2), keepdim=True) for image in (one, other))
    spreads = (one.square() * weights).sum((1, 2)) * (other.square() * weights).sum((1, 2))
    return (one * other * weights).sum((1, 2)) / (spreads.sqrt() + 0.05)


def _root(parents: np.ndarray, index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _join(parents: np.ndarray, one: int, other: int) -> None:
    """Join the groups of two images under the smaller root."""
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low
