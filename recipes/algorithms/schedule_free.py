"""ScheduleFree: swap the weights of schedule-free optimizers for training and evaluation."""

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
    """Switches a schedule-free optimizer between its training weights (y) and their average (x).

    Defazio et al. 2024 (https://arxiv.org/abs/2405.15682) replace learning rate decay by an average of the weights. The
    model holds the average, with BatchNorm statistics recomputed for it, during evaluation, prediction and
    checkpointing and at the end of fit(), until the next batch starts. Then the training weights and statistics are
    restored exactly: the optimizer would compute y from x, and rounding would make the run depend on evaluations.

    Checkpoints hold x in the model and y in this algorithm's state, so that runs resume bit for bit.

    Args:
        num_samples: training images over all ranks for recomputing the statistics, at most the whole data set.
            Published: 102,400.
    """

    events = (Event.BEFORE_LOAD, Event.BATCH_START, *_AVERAGE_ON)
    BOUNDS = {"num_samples": "at least 1"}
    RULES = {
        "'schedulefree' in f\"{config.optimizer.get('name')}\".replace('_', '').lower()": (
            "finds nothing to switch in optimizer.name={config.optimizer[name]}; type recipe_name=schedulefree_sgd for "
            "a schedule-free optimizer, or algorithms.schedule_free=null"
        ),
    }
    NO_LR_FIND = "only affects evaluation and checkpoints"

    def __init__(self, num_samples: int = 102_400) -> None:
        self.num_samples = num_samples
        self._statistics = BatchNormStatistics(num_samples)
        self._training: dict[str, Tensor] = {}  # parameters and buffers for training, while the model holds the average

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Switch to the average or to the training weights."""
        if event in _AVERAGE_ON:
            self._average(state)
        else:
            # Also before loading, because torch's checkpointing creates the optimizer's state by a step, which needs y.
            self._train(state)

    @contextmanager
    def evaluation_weights(self, state: State) -> Iterator[None]:
        """Context in which, and until the next batch, the model holds the average with its statistics."""
        self._average(state)
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return the training weights, if the model holds the average."""
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
