"""Small models, data and Trainers for the tests of algorithms: a few batches take about a second on a CPU."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from composer import Trainer
from composer.core import Algorithm, Callback, Event, State
from composer.loggers import Logger
from composer.models import ComposerClassifier
from composer.optim import DecoupledSGDW as StockDecoupledSGDW
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.resnet import Bottleneck, ResNet

from recipes.algorithms import reverse_eval_end
from recipes.algorithms._base import dense_targets

CLASSES = 10
BATCH_SIZE = 8


def assert_same_images(ours: Callable[[Tensor], Tensor], stock: Callable[[Image.Image], Image.Image]) -> None:
    """Check that the same draws from numpy's generator give the same images, also after pickling."""
    pixels = np.random.randint(0, 255, (24, 24, 3), dtype=np.uint8)
    ours = pickle.loads(pickle.dumps(ours))
    results = set()
    for seed in range(10):
        np.random.seed(seed)
        found = ours(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        np.random.seed(seed)
        expected = np.asarray(stock(Image.fromarray(pixels)))
        # The second operation may amplify a difference of 1 in the first.
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        results.add(found.tobytes())
    assert len(results) == 10


def resnet(block: Any = Bottleneck, layers: Sequence[int] = (1, 1, 1, 1), seed: int = 0) -> ResNet:
    """Build a shallow ResNet whose weights depend on the seed alone."""
    torch.manual_seed(seed)
    width = 16 if block is Bottleneck else 64
    return ResNet(block, list(layers), num_classes=CLASSES, width_per_group=width)


def soft_bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """The recipes' loss: summed over classes, averaged over the batch."""
    dense = dense_targets(outputs, targets)
    return F.binary_cross_entropy_with_logits(outputs, dense, reduction="sum") / outputs.shape[0]


class RecordingModel(ComposerClassifier):
    """A classifier that records the batches that its loss saw."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, num_classes=CLASSES, loss_fn=soft_bce)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def loss(self, outputs: Tensor, batch: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Record the batch and return the loss."""
        self.seen.append((batch[0].detach().clone(), batch[1].detach().clone()))
        return super().loss(outputs, batch, *args, **kwargs)


def loader(batches: int = 6, size: int = 16, batch_size: int = BATCH_SIZE) -> DataLoader:
    """Load the same images in the same order each time."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batches * batch_size, 3, size, size, generator=generator)
    labels = torch.randint(0, CLASSES, (batches * batch_size,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def trainer(
    algorithms: Sequence[Algorithm] = (),
    model: nn.Module | None = None,
    duration: str = "6ba",
    optimizer: type = StockDecoupledSGDW,
    optimizer_args: dict | None = None,
    train_loader: DataLoader | None = None,
    **arguments: Any,
) -> Trainer:
    """Build a quiet CPU Trainer for a tiny model."""
    model = RecordingModel(resnet() if model is None else model)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, **(optimizer_args or {})}
    return Trainer(
        model=model,
        train_dataloader=train_loader or loader(),
        max_duration=duration,
        optimizers=optimizer(model.parameters(), **options),
        algorithms=list(algorithms),
        algorithm_passes=reverse_eval_end,
        device="cpu",
        seed=17,
        progress_bar=False,
        auto_log_hparams=False,
        # As in training/fit.py: otherwise Composer adds its own algorithm to ours.
        load_exclude_algorithms=[type(algorithm).__qualname__ for algorithm in algorithms],
        **arguments,
    )


class Recorder(Callback):
    """Call a function with the State on one event, and keep the results in `found`."""

    def __init__(self, event: Event, look: Any) -> None:
        self.event = event
        self.look = look
        self.found: list[Any] = []

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        """Call the function on its event."""
        if event == self.event:
            self.found.append(self.look(state))


def weights(source: Trainer | nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's parameters and buffers."""
    model = source.state.model if isinstance(source, Trainer) else source
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether names and tensors are equal bitwise."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved_by(run: Trainer, folder: Path) -> str:
    """Save a run's state and return the path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warning about the checkpoint format
        return str(run.save_checkpoint(str(folder / "checkpoint.pt")))


def graph_breaks(model: nn.Module, size: int = 32) -> int:
    """Return the number of graph breaks in one forward pass."""
    torch._dynamo.reset()
    return torch._dynamo.explain(model)(torch.randn(2, 3, size, size)).graph_break_count
