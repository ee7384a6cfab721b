"""A network, data and a Trainer for the checks on four ranks, small enough for dozens of runs in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
import torch.nn.functional as F
from composer import Trainer
from composer.core import Algorithm, Callback, Event, State
from composer.models import ComposerClassifier
from composer.utils import dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from recipes.algorithms import reverse_eval_end
from recipes.optimizers import AccumAdam

WORLD = 4
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, lr=0.1: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=1e-3),
    "adam": lambda params, lr=0.01: torch.optim.Adam(params, lr=lr),
    "accum_adam": lambda params, lr=0.01: AccumAdam(params, lr=lr, accum_iter=3),
}


def network() -> nn.Module:
    """Build a network of a few hundred weights in channels_last, the same on every rank."""
    torch.manual_seed(3)
    # No bias before BatchNorm: its gradient is only rounding error, which Adam would scale up to full steps.
    features = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(16, 5)).to(memory_format=torch.channels_last)


def loader(batches: int, batch_size: int = 4) -> DataLoader:
    """Load the same images each time, different ones on each rank."""
    generator = torch.Generator().manual_seed(1)
    count = batches * batch_size * WORLD
    data = TensorDataset(torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 5)
    return DataLoader(data, batch_size=batch_size, sampler=dist.get_sampler(data))


def trainer(
    algorithms: Sequence[Algorithm],
    optimizer: str = "sgd",
    batches: int = 7,
    optimizer_args: dict[str, float] | None = None,
    **arguments: Any,
) -> Trainer:
    """Build a one-epoch Trainer for the network, as training/fit.py does."""
    model = ComposerClassifier(network(), num_classes=5, loss_fn=F.cross_entropy)
    return Trainer(
        model=model,
        train_dataloader=loader(batches),
        optimizers=OPTIMIZERS[optimizer](model.parameters(), **(optimizer_args or {})),
        max_duration=f"{batches}ba",
        algorithms=list(algorithms),
        algorithm_passes=reverse_eval_end,
        device="cpu",
        seed=17,
        progress_bar=False,
        auto_log_hparams=False,
        load_exclude_algorithms=[type(algorithm).__qualname__ for algorithm in algorithms],
        **arguments,
    )


def row(tensors: Any) -> Tensor:
    """Concatenate copies of tensors into one vector."""
    return torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])


def digest(tensors: Iterable[Tensor]) -> bytes:
    """Return a hash of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    return found.digest()


def weights(state: State) -> Tensor:
    """Return this rank's weights as one vector."""
    return row(state.model.parameters())


def everything(state: State) -> Tensor:
    """Return this rank's weights, buffers, moving averages and optimizer state as one vector."""
    parts = [*state.model.parameters(), *state.model.buffers()]
    parts += [t for p in state.optimizers[0].state.values() for t in p.values() if torch.is_tensor(t)]
    for algorithm in state.algorithms:
        parts += getattr(algorithm, "_parameters", {}).values()
    return row(parts)


def put_back(run: Trainer) -> None:
    """Restore this rank's own weights; fit() leaves the mean in the model."""
    run.state.algorithms[-1]._put_back(run.state)  # type: ignore[attr-defined]


def own_weights(run: Trainer) -> Tensor:
    """Restore this rank's own weights after fit() and return them."""
    put_back(run)
    return weights(run.state)


class Scatter(Callback):
    """Give each rank different weights at the start; DDP made them equal."""

    def fit_start(self, state: State, logger: Any) -> None:
        """Add noise."""
        generator = torch.Generator().manual_seed(dist.get_global_rank())
        for p in state.model.parameters():
            p.data += torch.randn(p.shape, generator=generator)


class Losses(Callback):
    """Record the loss of each batch on this rank."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def batch_end(self, state: State, logger: Any) -> None:
        """Record the batch's loss."""
        self.found.append(state.total_loss_dict["loss/train/total"])


class Counter(Callback):
    """Count the collectives over all ranks from the start of the third batch to the start of the sixth."""

    calls = 0

    def run_event(self, event: Event, state: State, logger: Any) -> None:
        """Wrap the collectives of torch.distributed for three steps."""
        if event == Event.BATCH_START and state.timestamp.batch == 2:
            self._before = {name: getattr(torch_dist, name) for name in ("all_reduce", "broadcast", "barrier")}
            for name, call in self._before.items():
                setattr(torch_dist, name, self._counted(call))
        if event == Event.BATCH_START and state.timestamp.batch == 5:
            for name, call in self._before.items():
                setattr(torch_dist, name, call)

    def _counted(self, call: Callable) -> Callable:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += kwargs.get("group") is None
            return call(*args, **kwargs)

        return counted
