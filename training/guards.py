"""Callbacks that keep a run correct: exact learning rate, counted samples, finite loss, shared BatchNorm statistics."""

import math
from collections.abc import Callable
from typing import Any

from composer.core import Callback, Precision, State, Timestamp
from composer.loggers import Logger
from composer.utils import dist, reproducibility
from torch.nn.parallel import DistributedDataParallel

from config import DataError, TrainingError
from recipes.algorithms._base import ours
from recipes.batchnorm_statistics import average_over_ranks
from training.build import Data, Schedule
from training.param_groups import learning_rate


def for_run(schedule: Schedule, data: Data) -> list[Callback]:
    """Build the guards of a run."""
    exact = ExactSchedule(schedule.multiplier, schedule.momentum, schedule.clock.step)
    return [exact, FiniteLoss(), CommonBatchNorm(), WholeEpochs(data.batches_per_epoch, data.eval_samples)]


class ExactSchedule(Callback):
    """Set the learning rate of step t to lr * multiplier(t), without any state to save.

    Stock Composer steps its schedulers before it advances the timestamp, so that every step trains at the previous
    step's rate (the first two at 0).

    Args:
        multiplier: from the step, counted from 0, to the factor on each param group's initial_lr.
        momentum: from the step to the momentum (Adam: the first beta); None leaves it constant.
        step: from the timestamp to the step, in batches of this run.
    """

    def __init__(
        self,
        multiplier: Callable[[float], float],
        momentum: Callable[[float], float] | None = None,
        step: Callable[[Timestamp], float] = lambda timestamp: timestamp.batch.value,
    ) -> None:
        self.multiplier, self.momentum, self.step = multiplier, momentum, step

    def batch_start(self, state: State, logger: Logger) -> None:
        """Set this step's learning rate."""
        self._set(state, self.step(state.timestamp))

    def eval_start(self, state: State, logger: Logger) -> None:
        """Set the last step's learning rate: a resumed run may evaluate before its first batch."""
        if state.optimizers and state.timestamp.batch.value:
            # Without training data, an epoch has no steps.
            self._set(state, max(0.0, self.step(state.timestamp) - 1))

    def _set(self, state: State, step: float) -> None:
        factor = self.multiplier(step)
        for group in state.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor
            if self.momentum is not None:
                momentum = self.momentum(step)
                group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})


class ExactRandomState(Callback):
    """Restore the random states of a checkpoint at the start of fit, also in mid-epoch.

    Stock Composer restores them only after decoding and discarding the batches already seen, which we skip.
    """

    def __init__(self) -> None:
        self.states: list[dict] | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        """Restore the random state once, if the number of ranks is unchanged."""
        if self.states is not None and len(self.states) == dist.get_world_size():
            reproducibility.load_rng_state(self.states)
        self.states = None


class FiniteLoss(Callback):
    """Stop a run whose loss is not finite, before its state is saved."""

    def batch_end(self, state: State, logger: Logger) -> None:
        """Raise TrainingError naming the step and the learning rate."""
        loss = state.total_loss_dict.get("loss/train/total", 0.0)
        if loss - loss != 0:  # true for inf and nan
            exact = "" if state.precision == Precision.FP32 else ", set precision=fp32"
            raise TrainingError(
                f"the loss is {loss} at step {state.timestamp.batch.value - 1} (epoch {state.timestamp.epoch.value}), "
                f"learning rate {learning_rate(state.optimizers[0]):g}. Earlier checkpoints are intact. "
                f"Lower optimizer.lr{exact} or lengthen scheduler.t_warmup"
            )

    def eval_end(self, state: State, logger: Logger) -> None:
        """Raise TrainingError if the evaluation's loss is not finite."""
        metric: Any = state.eval_metrics.get("eval", {}).get("CrossEntropy")
        if metric is not None and not math.isfinite(loss := float(metric.compute())):
            raise TrainingError(
                f"the evaluation's loss is {loss} at step {state.timestamp.batch.value} (epoch "
                f"{state.timestamp.epoch.value}). Lower optimizer.lr, lengthen scheduler.t_warmup, or give "
                "train_dataset.batch_size more images per device for BatchNorm"
            )


class WholeEpochs(Callback):
    """Fail a training epoch of other than `batches` batches, or an evaluation of other than `eval_samples` images."""

    def __init__(self, batches: int, eval_samples: int) -> None:
        self.batches, self.eval_samples = batches, eval_samples

    def epoch_end(self, state: State, logger: Logger) -> None:
        """Raise DataError if the training epoch was short."""
        assert state.previous_timestamp is not None
        seen = state.previous_timestamp.batch_in_epoch.value
        if seen != self.batches:
            raise DataError(
                f"epoch {state.timestamp.epoch.value - 1} ended after {seen} of {self.batches} batches: images are "
                "missing; check the data with `python data.py PATH`"
            )

    def eval_end(self, state: State, logger: Logger) -> None:
        """Raise DataError unless every image was counted exactly once."""
        metric: Any = state.eval_metrics["eval"]["MulticlassAccuracy"]
        count = (metric.tp + metric.fn).sum()
        dist.all_reduce(count, "SUM")
        if int(count) != self.eval_samples:
            raise DataError(
                f"the evaluation counted {int(count)} images, but the data set has {self.eval_samples}, so its figures "
                "would be wrong; check the data with `python data.py PATH`"
            )


class CommonBatchNorm(Callback):
    """Average BatchNorm's running statistics over the ranks before every evaluation and checkpoint.

    In stock Composer, DDP broadcasts rank 0's statistics before each step, so the saved ones have seen only rank 0's
    images, and each rank evaluates with a different last step. Here each rank keeps its own until they are averaged,
    which also saves the broadcast.
    """

    def fit_start(self, state: State, logger: Logger) -> None:
        """Stop DDP from broadcasting rank 0's statistics."""
        if isinstance(state.model, DistributedDataParallel):
            state.model.broadcast_buffers = False

    def eval_start(self, state: State, logger: Logger) -> None:
        """Average the statistics of the weights to evaluate; an averaging algorithm may have swapped in its own."""
        average_batchnorm(state)

    fit_end = eval_start  # for the final statistics


def average_batchnorm(state: State) -> None:
    """Replace running statistics, the model's and the averaging algorithms', by their mean over the ranks.

    The mean of running means is the running mean of the means, so it does not matter how often this is done.
    """
    held = [(name, buffer) for a in ours(state.algorithms) for name, buffer in a.named_buffers.items()]
    tensors = [t for name, t in [*state.model.named_buffers(), *held] if name.endswith(("running_mean", "running_var"))]
    average_over_ranks(tensors)
