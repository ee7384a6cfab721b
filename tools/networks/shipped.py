"""The network as shipped: uint8 images in, normalization inside, probabilities out."""

import copy
from dataclasses import replace
from typing import Any

import torch
from composer.algorithms.ghost_batchnorm.ghost_batchnorm import _GhostBatchNorm
from composer.core import Event, State
from composer.core.engine import Engine
from composer.devices import DeviceCPU
from composer.loggers import Logger
from torch import Tensor, nn

from config.schema import AUTO, Config
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD
from recipes.algorithms.stochastic_depth import STOCHASTIC
from training import build
from training.loading import check_fits
from training.saved import Saved


class Shipped(nn.Module):
    """A trained network, in evaluation mode, that normalizes its input itself.

    Args:
        network: maps normalized images, float32 [B, 3, S, S], to logits [B, classes]; it is copied.
        logits: whether to return logits instead of probabilities.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, logits: bool = False) -> None:
        super().__init__()
        self.network = plain(network)
        self.logits = logits
        for name, values in (("mean", CHANNEL_MEAN), ("std", CHANNEL_STD)):
            # As NormalizationFn computes them, so that evaluation is bit-identical.
            self.register_buffer(name, (torch.tensor(values, dtype=torch.float32) * 255).view(1, -1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images, uint8 [B, 3, S, S], to probabilities or logits, float32 [B, classes]."""
        logits = self.network((images - self.mean) / self.std)
        return logits if self.logits else logits.softmax(dim=1)


def plain(network: nn.Module) -> nn.Module:
    """Return a copy whose stochastic blocks are torchvision's again, with equal outputs in evaluation.

    In evaluation a stochastic block multiplies its branch by keep_probability, which torchvision's does not: the factor
    goes into the branch's last BatchNorm. A block whose last BatchNorm is not torch's stays as it is.
    """
    network = copy.deepcopy(network)
    originals: dict[type, type] = {stochastic: original for original, stochastic in STOCHASTIC.items()}
    for block in network.modules():
        last = getattr(block, "bn3", getattr(block, "bn2", None))
        if type(block) not in originals or type(last) is not nn.BatchNorm2d:
            continue
        keep: Any = block.keep_probability
        with torch.no_grad():
            last.weight.mul_(keep)
            last.bias.mul_(keep)
        block.__class__ = originals[type(block)]
        del block.keep_probability, block.drop_per_sample
    return network


def trained_network(config: Config, saved: Saved) -> nn.Module:
    """Return a run's network as it was trained, changed by its algorithms, with a checkpoint's weights, on the CPU.

    A checkpoint's model entry holds the evaluation weights, such as EMA's average. CheckpointError if it does not fit.
    """
    # Not frozen, which matters to training alone: a frozen BatchNorm is of another class.
    thawed = replace(config.model, freeze=None, freeze_batchnorm=AUTO)
    model = build.model(replace(config, model=thawed))
    surgeries = [made for made in build.algorithms(config) if type(made).required_on_load()]
    state = State(rank_zero_seed=config.seed, model=model, device=DeviceCPU(), run_name="network", algorithms=surgeries)
    engine = Engine(state, Logger(state))
    try:
        engine.run_event(Event.INIT)
    finally:
        engine.close()
    check_fits(saved, model, surgeries, None, anew=False)
    model.load_state_dict(saved.state["model"])
    network = model.module.eval()
    for name, layer in list(network.named_modules()):
        # The same in evaluation, where Composer's rejects batches smaller than its own, and fixes their size on export.
        if isinstance(layer, _GhostBatchNorm):
            network.set_submodule(name, layer.batchnorm)
    return network
