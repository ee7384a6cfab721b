"""ChannelsLast: convolution weights in NHWC order, whatever the order of the list of algorithms."""

from __future__ import annotations

import torch
from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm


class ChannelsLast(RecipeAlgorithm):
    """Turns the model to torch.channels_last at Event.AFTER_LOAD: all surgery is done, DDP and compile come later.

    Stock Composer does it at Event.INIT in list order, so that listed before blurpool it leaves the convolutions that
    blurpool makes in NCHW (3 of 17 in a small network). The optimizer's state follows, because elementwise operations
    on tensors of two memory formats are slow.
    """

    def __init__(self) -> None:
        pass

    def match(self, event: Event, state: State) -> bool:
        """On Event.AFTER_LOAD."""
        return event == Event.AFTER_LOAD

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Convert parameters, buffers and the state of the optimizers."""
        self.acted = True  # a model that has the order already is as it should be
        state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for optimizer in state.optimizers:
            for slots in optimizer.state.values():
                for key, value in slots.items():
                    if isinstance(value, torch.Tensor) and value.ndim == 4:
                        slots[key] = value.contiguous(memory_format=torch.channels_last)
