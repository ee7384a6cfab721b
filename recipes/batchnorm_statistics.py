"""BatchNorm statistics for weights that were never trained with: averages over time, or over ranks.

BatchNorm's running mean and variance belong to the weights that training went through. Averaged weights need their own,
so some training images are sent through the network once more, from a loader of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from composer.core import State, get_precision_context
from composer.utils import dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, Sampler

from loaders.dataset import ImageDataset, Key
from loaders.images.transforms import NormalizationFn
from loaders.workers import WorkerLoader
from recipes.algorithms._base import unwrapped


class BatchNormStatistics:
    """Recomputes the running statistics of a run's model for the weights that are in it.

    Always over the same images, the first of the run's first epoch, cropped as they were there, at the size that
    training has reached: what comes out depends on the weights and the seed alone. The training loader, its workers and
    its place in the epoch are not touched, nor are random numbers or gradients.

    Args:
        num_samples: how many training images, over all ranks; whole batches of them, at least one, and at most all.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self._loader: WorkerLoader | None = None

    def recompute(self, state: State) -> None:
        """Replace the model's running statistics, on all ranks by the same; every rank calls this.

        Without training data (a run that only evaluates) those that were loaded with the weights stay.
        """
        if state.train_dataloader is None:
            return
        # Neither DDP, which would overwrite all ranks' buffers with rank 0's, nor a compiled graph, which would be
        # compiled once more for this mode.
        network = cast(nn.Module, unwrapped(state.model).module)
        with get_precision_context(state.precision, state.precision_config):
            recompute(network, self._images(state))

    def _images(self, state: State) -> Iterator[Tensor]:
        """This rank's share of the images, normalised, float32 [n, 3, size, size], in training's microbatches."""
        train = cast(WorkerLoader, state.train_dataloader)
        if self._loader is None:
            order = FirstImages(cast(ImageDataset, train.dataset), self.num_samples, cast(int, train.batch_size))
            self._loader = loader_beside(train, order)
        size_at = getattr(train.sampler, "size_at", None)
        now = state.timestamp.epoch.value, state.timestamp.batch_in_epoch.value
        cast(FirstImages, self._loader.sampler).size = size_at(*now) if size_at else None
        normalize = NormalizationFn()
        for batch in self._loader:
            images, labels = state.device.batch_to_device(batch)
            for part in images.split(int(state.device_train_microbatch_size or len(images))):
                yield normalize((part, labels))[0]


class FirstImages(Sampler[Key]):
    """This rank's share of the first images of a run's first epoch, as keys of its data set.

    Unlike EpochSampler it neither moves the data set on to another epoch nor takes its place to resume from.

    Args:
        dataset: the training data.
        num_samples: how many images, over all ranks, rounded down to whole batches, but to at least one.
        batch_size: samples per device.
    """

    def __init__(self, dataset: ImageDataset, num_samples: int, batch_size: int) -> None:
        whole = batch_size * dist.get_world_size()
        count = max(1, min(num_samples, len(dataset)) // whole) * whole
        self.dataset = dataset
        self.order = dataset.epoch_order(np.random.default_rng([dataset.seed, 0]))[:count]
        self.size: int | None = None  # side of the images in pixels; None leaves it to the data set

    def __len__(self) -> int:
        return len(self.order) // dist.get_world_size()

    def __iter__(self) -> Iterator[Key]:
        world_size, rank = dist.get_world_size(), dist.get_global_rank()
        with self.dataset.prefetch(self.order) as reached:
            for step, index in enumerate(self.order[rank::world_size].tolist()):
                reached(step * world_size)
                yield (0, index) if self.size is None else (0, index, self.size)


def loader_beside(train: WorkerLoader, sampler: Sampler[Key]) -> WorkerLoader:
    """A loader of the same kind over the same data set, with an order, workers and random numbers of its own.

    Args:
        train: the loader to take after; nothing of it changes.
        sampler: what to load; a last batch that is not full is left out.
    """
    loader = copy.copy(train)
    # Not by setattr: a DataLoader refuses to change these once it is made, which this one has yet to be.
    vars(loader).update(
        sampler=sampler,
        batch_sampler=BatchSampler(cast(Iterable[int], sampler), cast(int, train.batch_size), drop_last=True),
        generator=torch.Generator(),
        _iterator=None,
    )
    return loader


@torch.no_grad()
def recompute(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of all BatchNorms by the means over `batches`, each image counting alike.

    All else in the network is in evaluation mode meanwhile, so that dropout neither draws nor disturbs; then every
    module is in the mode that it was in. Every rank calls this with its share, and gets the mean over the ranks.

    Args:
        network: without DDP around it.
        batches: what to call it with, the images in the first dimension.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    modes = [(module, module.training) for module in network.modules()]
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
    seen = 0
    try:
        for batch in batches:
            seen += len(batch)
            for layer in layers:
                # As momentum=None does it, for which the host would wait for the GPU in every layer.
                layer.momentum = len(batch) / seen
            network(batch)
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    average_over_ranks([t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None])


@torch.no_grad()
def average_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the ranks, in one reduction, summed in float64."""
    if dist.get_world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).double()
    dist.all_reduce(flat, "SUM")
    flat /= dist.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
