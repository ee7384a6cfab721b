"""ChannelsLast: convolution weights in NHWC order, independent of the order of the algorithms."""

from __future__ import annotations

import torch
from composer.core import Event, State
from composer.loggers import Logger

from recipes.algorithms._base import RecipeAlgorithm


class ChannelsLast(RecipeAlgorithm):
    """Converts the model to torch.channels_last at Event.AFTER_LOAD, after model surgery but before DDP and compile.

    Stock Composer converts at Event.INIT, and misses the convolutions that blurpool creates if listed before it. The
    optimizer's state is converted too, because elementwise operations on two memory formats are slow.
    """

    events = (Event.AFTER_LOAD,)

    def __init__(self) -> None:
        pass

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Convert the parameters, the buffers and the state of the optimizers."""
        self.acted = True  # also if the model was in channels_last already
        state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for optimizer in state.optimizers:
            for slots in optimizer.state.values():
                for key, value in slots.items():
                    if isinstance(value, torch.Tensor) and value.ndim == 4:
                        slots[key] = value.contiguous(memory_format=torch.channels_last)
