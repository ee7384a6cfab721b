"""Training steps of a known length: weights and gradients of a given size, with sleeping instead of computing.

A few cores can thus simulate several nodes with a GPU each: only the network takes processor time. Two thirds of the
sleeping is in the backward pass, block by block, so that AllReduce overlaps as it does on a GPU.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

import composer.algorithms  # noqa: F401  # takes seconds, which every rank's Trainer would spend after the fork
import numpy as np
import torch
import torch.nn.functional as F
from composer import Trainer
from composer.core import Callback, State
from composer.distributed import dist_strategy
from composer.loggers import Logger
from composer.models import ComposerClassifier
from composer.utils import dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from recipes.algorithms.decentralized import Decentralized
from recipes.optimizers import DecoupledSGDW


class Pace:
    """The time that this rank computes in each step.

    Args:
        seconds: per step.
        jitter: mean of an exponentially distributed extra time per step, in seconds; 0 for equal ranks.
        rank: seeds the extra times.
    """

    def __init__(self, seconds: float, jitter: float, rank: int) -> None:
        self.seconds, self.jitter = seconds, jitter
        self._random = np.random.default_rng([17, rank])
        self._now = 0.0

    def next(self) -> None:
        """Draw the next step's length."""
        self._now = self.seconds + (self._random.exponential(self.jitter) if self.jitter else 0.0)

    def wait(self, share: float) -> None:
        """Sleep for a share of the step's length."""
        time.sleep(share * self._now)


BLOCKS = 8


def paced_model(pace: Pace, megabytes: float) -> ComposerClassifier:
    """Build a model of BLOCKS blocks that sleep instead of computing; `megabytes` is their total size."""
    torch.manual_seed(0)
    blocks = [nn.Linear(width(megabytes), width(megabytes), bias=False) for _ in range(BLOCKS)]
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: pace.wait(1 / 3 / BLOCKS))
        block.register_full_backward_hook(lambda *_: pace.wait(2 / 3 / BLOCKS))
    return ComposerClassifier(nn.Sequential(*blocks), num_classes=width(megabytes), loss_fn=F.cross_entropy)


def width(megabytes: float) -> int:
    """Return the width of each block's square float32 weight matrix."""
    return round((megabytes * 1e6 / 4 / BLOCKS) ** 0.5)


class InQuarters(DistributedDataParallel):
    """DDP with four gradient buckets, as for a ResNet-50, so that the same share of communication overlaps."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        size = sum(p.numel() * p.element_size() for p in module.parameters())
        super().__init__(module, bucket_cap_mb=size / 4 / 2**20, **options)


class Clock(Callback):
    """Record when each batch starts, and draw its length."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.started: list[float] = []

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """Start a batch."""
        self.started.append(time.monotonic())
        self.pace.next()


@dataclass(frozen=True)
class Node:
    """A node with one rank."""

    rank: int
    world: int
    address: str  # of rank 0
    port: int  # of rank 0
    device: str  # network device

    def join(self) -> None:
        """Set the environment that a launcher would set, and join the other ranks."""
        names = {"RANK": self.rank, "LOCAL_RANK": 0, "WORLD_SIZE": self.world, "LOCAL_WORLD_SIZE": 1}
        names |= {"NODE_RANK": self.rank, "MASTER_PORT": self.port}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR=self.address, GLOO_SOCKET_IFNAME=self.device)
        dist.initialize_dist("cpu", timeout=120)


def step_seconds(node: Node, algorithm: dict[str, Any] | None, megabytes: float, count: int, pace: Pace) -> float:
    """Return this rank's mean seconds per training step; the process must already be in its namespace.

    Args:
        node: this rank.
        algorithm: Decentralized's arguments; None for AllReduce.
        megabytes: size of the weights.
        count: steps to measure, after two warm-up steps.
        pace: of this rank.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist_strategy.DistributedDataParallel = InQuarters  # type: ignore[assignment,misc]
    node.join()
    clock = Clock(pace)
    samples = node.world * (count + 2)
    data = TensorDataset(torch.randn(samples, width(megabytes)), torch.zeros(samples, dtype=torch.long))
    model = paced_model(pace, megabytes)
    trainer = Trainer(
        model=model,
        train_dataloader=DataLoader(data, batch_size=1, sampler=dist.get_sampler(data)),
        optimizers=DecoupledSGDW(model.parameters(), lr=0.01, momentum=0.9),
        max_duration="1ep",
        algorithms=[] if algorithm is None else [Decentralized(**algorithm)],
        callbacks=[clock],
        device="cpu",
        progress_bar=False,
        auto_log_hparams=False,
    )
    trainer.fit()
    return (clock.started[count + 2] - clock.started[2]) / count
