"""What lets a rank go on without waiting for all others at every batch: Composer's reductions, done without them."""

from __future__ import annotations

from typing import Any, cast

import composer.trainer.trainer as trainer_module
from composer.utils import dist
from torch import Tensor


class OwnPace:
    """`composer.utils.dist` as the Trainer sees it; while `active`, sums are taken as n equal parts, without waiting.

    In every batch the Trainer asks all ranks for the end of the epoch, the batch size, the number of samples, the loss
    and the time. The first three are the same everywhere, because every rank has as many batches of as many images
    (WholeEpochs fails the epoch if not); the loss and the time are then this rank's own.

    Experimental: it patches the module of Composer's Trainer, so every upgrade of Composer has to be tested with it.
    """

    def __init__(self) -> None:
        self.active = False

    def install(self) -> None:
        """Put this between the Trainer and Composer's functions."""
        self.active = False
        trainer_module.dist = cast(Any, self)

    def remove(self) -> None:
        """Undo install()."""
        self.active = False
        trainer_module.dist = dist

    def __getattr__(self, name: str) -> Any:
        return getattr(dist, name)

    def all_reduce(self, tensor: Tensor, reduce_operation: str = "SUM", group: Any = None) -> None:
        """As Composer's, or as if all ranks had the same tensor."""
        if not self.active:
            dist.all_reduce(tensor, reduce_operation, group)
        elif reduce_operation == "SUM":
            tensor.mul_(dist.get_world_size())

    def broadcast(self, tensor: Tensor, src: int, group: Any = None) -> None:
        """As Composer's, or nothing."""
        if not self.active:
            dist.broadcast(tensor, src, group)
