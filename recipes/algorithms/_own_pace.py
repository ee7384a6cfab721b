"""Replace Composer's reductions in every batch, so that a rank need not wait for all others."""

from __future__ import annotations

from typing import Any, cast

import composer.trainer.trainer as trainer_module
from composer.utils import dist
from torch import Tensor


class OwnPace:
    """Stands in for `composer.utils.dist` in the Trainer; while `active`, assumes that all ranks have the same value.

    In every batch the Trainer synchronizes the end of the epoch, the batch size, the number of samples, the loss and
    the time. The first three are equal on all ranks (WholeEpochs fails the epoch if not); the others are this rank's.
    Experimental: it patches the module of Composer's Trainer, so test it with every upgrade of Composer.
    """

    def __init__(self) -> None:
        self.active = False

    def install(self) -> None:
        """Make the Trainer use this object in place of Composer's module."""
        self.active = False
        trainer_module.dist = cast(Any, self)

    def remove(self) -> None:
        """Undo install()."""
        self.active = False
        trainer_module.dist = dist

    def __getattr__(self, name: str) -> Any:
        return getattr(dist, name)

    def all_reduce(self, tensor: Tensor, reduce_operation: str = "SUM", group: Any = None) -> None:
        """Reduce like Composer or, while active, as if all ranks had the same tensor."""
        if not self.active:
            dist.all_reduce(tensor, reduce_operation, group)
        elif reduce_operation == "SUM":
            tensor.mul_(dist.get_world_size())

    def broadcast(self, tensor: Tensor, src: int, group: Any = None) -> None:
        """Broadcast like Composer or, while active, do nothing."""
        if not self.active:
            dist.broadcast(tensor, src, group)
