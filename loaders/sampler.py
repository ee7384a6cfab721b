"""Order of an epoch: a function of seed and epoch, the same for any number of ranks, resumable mid-epoch."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from composer.utils import dist
from torch.utils.data import DistributedSampler

from loaders.dataset import ImageDataset, Key


class EpochSampler(DistributedSampler[Key]):
    """Yield (epoch, index), (epoch, index, size) or, of repeated images, (epoch, index, size, copy), for one rank.

    Rank r yields every world_size-th sample of one global order. The samples of a step are therefore consecutive, and a
    run with another number of ranks can resume after "n samples done".

    Copies of an image (`dataset.repeats`) follow each other in the global order, so that they go to different ranks, if
    there are enough, as in the samplers of DeiT, timm and torchvision (Hoffer et al. 2020, Berman et al. 2019).

    Unlike torch's DistributedSampler (and Composer's `dist.get_sampler`) the seed matters, and `len()` is always the
    full epoch's, even while a resumed epoch yields only the rest.

    Args:
        dataset: what to sample.
        shuffle: use a new order each epoch instead of the stored one.
        drop_last: cut the epoch to a multiple of the world size (training), or pad it by repeating the first samples
            (evaluation; Composer drops exactly this padding from its metrics).
        batch_size: samples per step on one rank; only needed with `size_at`.
        world_size, rank: from the environment if None.
    """

    dataset: ImageDataset
    size_at: Callable[[int, int], int] | None = None
    """(epoch, batch of that epoch) -> side of the images in pixels; None leaves it to the pipeline."""

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        shuffle: bool,
        drop_last: bool,
        batch_size: int = 1,
        world_size: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(
            dataset,
            num_replicas=dist.get_world_size() if world_size is None else world_size,
            rank=dist.get_global_rank() if rank is None else rank,
            shuffle=shuffle,
            seed=dataset.seed,
            drop_last=drop_last,
        )
        self.batch_size = batch_size
        if dataset.repeats > 1:
            self.num_samples = dataset.epoch_size // self.num_replicas
            self.total_size = self.num_samples * self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration (called by Composer)."""
        super().set_epoch(epoch)
        self.dataset.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        epoch, order, repeats = self.epoch, np.arange(len(self.dataset)), self.dataset.repeats
        if self.shuffle:
            order = self.dataset.epoch_order(np.random.default_rng([self.seed, epoch]))
        if repeats > 1:
            order = np.repeat(order, repeats)[: self.dataset.epoch_size]
        done = self.dataset.take_resume(epoch)
        left = order[done:]
        steps = len(left) // self.num_replicas if self.drop_last else -(-len(left) // self.num_replicas)
        padded = np.resize(np.concatenate([left, order]), steps * self.num_replicas)
        with self.dataset.prefetch(left) as reached:
            for step, index in enumerate(padded[self.rank :: self.num_replicas].tolist()):
                reached(step * self.num_replicas)
                size = None
                if self.size_at is not None:
                    batch = done // (self.batch_size * self.num_replicas) + step // self.batch_size
                    size = self.size_at(epoch, batch)
                if repeats > 1:
                    yield epoch, index, size, (done + step * self.num_replicas + self.rank) % repeats
                elif size is not None:
                    yield epoch, index, size
                else:
                    yield epoch, index


def endless(loader: Any) -> Iterator[Any]:
    """Yield the batches of a loader forever, each epoch in a different order."""
    for epoch in itertools.count():
        if isinstance(sampler := getattr(loader, "sampler", None), DistributedSampler):
            sampler.set_epoch(epoch)
        yield from loader
