"""DropPath: stochastic depth as in timm."""

from __future__ import annotations

from typing import cast

from composer.core import Event, State
from composer.loggers import Logger
from torch import nn

from recipes.algorithms._base import Surgery
from recipes.algorithms.stochastic_depth import STOCHASTIC, StochasticBlock


class DropPath(Surgery):
    """Drops residual branches per image in training, and divides those it keeps by their probability.

    As timm's drop_path_rate: block l of L, counted from 0, drops with probability `rate` * l / (L - 1); evaluation is
    that of the plain network. StochasticDepth, as Mosaic's, starts at rate / L and multiplies in evaluation. Only the
    class of the blocks changes, not their parameters and names.

    Args:
        rate: probability of dropping the last branch. Published: .05 (rsb_a1, rsb_a2).
    """

    BOUNDS = {"rate": "more than 0 and less than 1"}
    NOT_WITH = {"stochastic_depth": "both drop the same branches"}
    events = (Event.INIT,)

    def __init__(self, rate: float = 0.05) -> None:
        self.rate = rate

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Change the class of all blocks but the first, which always stays."""
        blocks: list[nn.Module] = [m for m in state.model.modules() if isinstance(m, tuple(STOCHASTIC))]
        for index, module in enumerate(blocks[1:], start=1):
            module.__class__ = STOCHASTIC.get(type(module), type(module))
            block = cast(StochasticBlock, module)
            block.drop_per_sample = block.scaled_in_training = True
            block.keep_probability = 1 - self.rate * index / (len(blocks) - 1)
