"""ScheduleFree: the right weights in the model at the right time for schedule-free optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor

from recipes.algorithms._base import RecipeAlgorithm, unwrapped
from recipes.batchnorm_statistics import BatchNormStatistics

_AVERAGE_ON = (Event.EVAL_START, Event.PREDICT_START, Event.FIT_END)


class ScheduleFree(RecipeAlgorithm):
    """Switches a schedule-free optimizer between the weights that it trains (y) and their average (x).

    Defazio et al. 2024 (https://arxiv.org/abs/2405.15682): in place of a decaying learning rate an average of the
    weights, which evaluations, predictions, checkpoints and the end of fit() have in the model, with BatchNorm
    statistics of its own. It stays there until the next batch begins. Then the training weights and their statistics
    are back to the last bit: the optimizer alone, which computes y from x, would round them, and an evaluation would
    change the run.

    Checkpoints hold x in the model and y in this algorithm's state, so that a resumed run is the same to the bit.

    Args:
        num_samples: training images, over all ranks, that the statistics are computed over, at most all of them.
            Published: 102,400.
    """

    BOUNDS = {"num_samples": "at least 1"}
    RULES = {
        "'schedulefree' in f\"{config.optimizer.get('name')}\".replace('_', '').lower()": (
            "finds nothing to switch in optimizer.name={config.optimizer[name]}; type recipe_name=schedulefree_sgd for "
            "an optimizer that it is for, or algorithms.schedule_free=null"
        ),
    }
    NO_LR_FIND = "is for evaluation and checkpoints, of which there are none"

    def __init__(self, num_samples: int = 102_400) -> None:
        self.num_samples = num_samples
        self._statistics = BatchNormStatistics(num_samples)
        self._training: dict[str, Tensor] = {}  # parameters and buffers to train on with, while the average is in

    def match(self, event: Event, state: State) -> bool:
        """On the events before which the weights have to be others."""
        return event in (Event.BEFORE_LOAD, Event.BATCH_START, *_AVERAGE_ON)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Bring in the average, or the training weights."""
        if event in _AVERAGE_ON:
            self._average(state)
        else:
            # Before loading, too: torch's checkpointing makes the optimizer's state by a step, which only this allows.
            self._train(state)

    @contextmanager
    def evaluation_weights(self, state: State) -> Iterator[None]:
        """Inside, and until the next batch begins, the model holds the average with its statistics."""
        self._average(state)
        yield

    def state_dict(self) -> dict[str, Any]:
        """What training goes on with, if the model holds the average."""
        return {**super().state_dict(), "training_weights": self._training}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict()."""
        self._training = dict(state["training_weights"])

    def _average(self, state: State) -> None:
        optimizer: Any = state.optimizers[0]
        if not optimizer.param_groups[0]["train_mode"]:
            return
        self._training = {name: tensor.detach().clone() for name, tensor in unwrapped(state.model).state_dict().items()}
        optimizer.eval()
        self._statistics.recompute(state)

    @torch.no_grad()
    def _train(self, state: State) -> None:
        optimizer: Any = state.optimizers[0]
        if optimizer.param_groups[0]["train_mode"]:
            return
        optimizer.train()
        if self._training:
            live = unwrapped(state.model).state_dict()
            torch._foreach_copy_([live[name] for name in self._training], list(self._training.values()))
            self._training = {}
