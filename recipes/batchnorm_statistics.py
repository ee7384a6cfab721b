"""Recompute BatchNorm statistics for weights averaged over time or over ranks, from some training images."""

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
from recipes.frozen_batchnorm import is_frozen


class BatchNormStatistics:
    """Recomputes the running statistics of a run's model for its current weights.

    It always uses the first images of the run's first epoch, cropped as they were there, at the current image size, so
    that the result depends only on the weights and the seed. It does not affect the training loader, random numbers or
    gradients.

    Args:
        num_samples: number of training images over all ranks, rounded down to whole batches, but at least one batch.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self._loader: WorkerLoader | None = None

    def recompute(self, state: State) -> None:
        """Replace the model's running statistics by the same on all ranks; every rank must call this.

        Without training data (a run that only evaluates) the loaded statistics are kept.
        """
        if state.train_dataloader is None:
            return
        # Unwrapped: DDP would overwrite all ranks' buffers with rank 0's, and a compiled model would be recompiled.
        network = cast(nn.Module, unwrapped(state.model).module)
        with get_precision_context(state.precision, state.precision_config):
            recompute(network, self._images(state))

    def _images(self, state: State) -> Iterator[Tensor]:
        """Yield this rank's normalized images, float32 [n, 3, size, size], in training's microbatches."""
        train = cast(WorkerLoader, state.train_dataloader)
        if self._loader is None:
            order = FirstImages(cast(ImageDataset, train.dataset), self.num_samples, cast(int, train.batch_size))
            self._loader = copied_loader(train, order)
        size_at = getattr(train.sampler, "size_at", None)
        now = state.timestamp.epoch.value, state.timestamp.batch_in_epoch.value
        cast(FirstImages, self._loader.sampler).size = size_at(*now) if size_at else None
        normalize = NormalizationFn()
        for batch in self._loader:
            images, labels = state.device.batch_to_device(batch)
            for part in images.split(int(state.device_train_microbatch_size or len(images))):
                yield normalize((part, labels))[0]


class FirstImages(Sampler[Key]):
    """Samples this rank's share of the first `num_samples` images of a run's first epoch, as keys of the data set.

    Unlike EpochSampler, it neither advances the data set's epoch nor consumes its position to resume from.
    """

    def __init__(self, dataset: ImageDataset, num_samples: int, batch_size: int) -> None:
        whole = batch_size * dist.get_world_size()
        count = max(1, min(num_samples, len(dataset)) // whole) * whole
        self.dataset = dataset
        self.order = dataset.epoch_order(np.random.default_rng([dataset.seed, 0]))[:count]
        self.size: int | None = None  # in pixels; None: the data set's

    def __len__(self) -> int:
        return len(self.order) // dist.get_world_size()

    def __iter__(self) -> Iterator[Key]:
        world_size, rank = dist.get_world_size(), dist.get_global_rank()
        with self.dataset.prefetch(self.order) as reached:
            for step, index in enumerate(self.order[rank::world_size].tolist()):
                reached(step * world_size)
                yield (0, index) if self.size is None else (0, index, self.size)


def copied_loader(train: WorkerLoader, sampler: Sampler[Key]) -> WorkerLoader:
    """Copy a loader, with separate order, workers and random numbers; drops an incomplete last batch."""
    loader = copy.copy(train)
    # DataLoader forbids setattr of these after construction.
    vars(loader).update(
        sampler=sampler,
        batch_sampler=BatchSampler(cast(Iterable[int], sampler), cast(int, train.batch_size), drop_last=True),
        generator=torch.Generator(),
        _iterator=None,
    )
    return loader


@torch.no_grad()
def recompute(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of BatchNorms by the means over `batches`, all images weighted equally.

    Frozen BatchNorms keep theirs.

    The other modules are in evaluation mode meanwhile, so that dropout draws nothing; all modes are restored. Every
    rank must call this with its share, and gets the mean over the ranks. `network` must not be
    wrapped in DDP; the first dimension of its batches is the images.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and not is_frozen(m)]
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
                # Same as momentum=None, which would make the host wait for the GPU in every layer.
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
