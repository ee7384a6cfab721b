"""One sweep: the run's own training, with a learning rate that rises by a constant factor from batch to batch."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import reproducibility

from config import Run
from tools.lr_find.rules import RunningMean, fell, smoothing_for
from training import build, checkpoints, guards, weights
from training.fit import make_trainer
from training.interrupt import StopRequest
from training.param_groups import MULTIPLIER

TOO_HIGH = 4.0  # times the lowest loss; ends the sweep


@dataclass
class Sweep:
    """The measurements of a sweep, up to where it stopped."""

    seed: int
    samples: int  # images in the training set
    batches_per_epoch: int
    ended: str = "reached the end"
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # each batch's, averaged over the ranks
    smoothed: list[float] = field(default_factory=list)

    @property
    def fell(self) -> bool:
        """Whether the loss fell at all."""
        return bool(self.rates) and fell(np.array(self.losses), np.array(self.smoothed))

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates and smoothed losses, float [points] each."""
        return np.array(self.rates), np.array(self.smoothed)


class Ramp(Callback):
    """Sets each batch's learning rate to the next of `rates`, records the loss, and stops when the loss explodes.

    Param groups keep their multipliers. `initial_lr` rises too: decoupled weight decay is that of a run with this peak.
    """

    def __init__(self, sweep: Sweep, rates: list[float]) -> None:
        self.sweep, self._rates = sweep, rates
        self._mean = RunningMean(smoothing_for(len(rates)))
        self._ratios: list[float] = []

    def fit_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Record the param groups' multipliers, and disable the warm-up inside schedule-free optimizers."""
        groups = state.optimizers[0].param_groups
        self._ratios = [group.get(MULTIPLIER, 1.0) for group in groups]
        for group in groups:
            if "warmup_steps" in group:
                group["warmup_steps"] = 0
        if hasattr(state.optimizers[0], "train"):
            state.optimizers[0].train()

    def batch_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Set this batch's learning rate."""
        rate = self._rates[len(self.sweep.rates)]
        for group, ratio in zip(state.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = group["initial_lr"] = rate * ratio

    def batch_end(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Record the batch's loss, and stop at the last batch or an explosion, on every rank alike."""
        sweep, loss = self.sweep, float(state.total_loss_dict["loss/train/total"])
        rate = self._rates[len(sweep.rates)]
        if not math.isfinite(loss):
            sweep.ended = f"stopped at {rate:.3g}, where the loss is {loss}"
            state.stop_training()
            return
        sweep.rates.append(rate)
        sweep.losses.append(loss)
        sweep.smoothed.append(self._mean.add(loss))
        done, points = len(sweep.rates), len(self._rates)
        if done > points / 10 and sweep.smoothed[-1] > TOO_HIGH * min(sweep.smoothed):
            sweep.ended = f"stopped at {rate:.3g}, where the loss is {TOO_HIGH:g} times its lowest"
        elif done < points:
            return
        state.stop_training()


def run_sweep(run: Run, seed: int, rates: list[float], began: Callable[[Sweep], None]) -> Sweep:
    """Train at these rates, one batch each, as the start of a prepared run; nothing is evaluated, saved or recorded.

    `seed` replaces the run's, for weights, order and augmentation; `began` is called when the data are open.
    """
    run = replace(run, config=copy.deepcopy(run.config))
    config = run.config
    config.seed = seed
    torch.compiler.reset()
    reproducibility.seed_all(seed)
    algorithms, saver = build.algorithms(config), checkpoints.for_run(run, "lr_find", StopRequest())
    saved, pretrained = weights.to_start_from(config, saver)
    data = build.data(run, algorithms)
    model, _ = weights.build_model(run, pretrained, data.classes, algorithms)
    schedule = build.schedule(run, data)
    assert data.train is not None
    sweep = Sweep(seed, len(build.image_dataset(data.train)), data.batches_per_epoch)
    began(sweep)
    trainer = make_trainer(
        run,
        run_name="lr_find",
        model=model,
        data=data,
        optimizers=build.optimizer(config, model),
        max_duration=schedule.max_duration if schedule.batches >= len(rates) else f"{len(rates)}ba",
        algorithms=algorithms,
        callbacks=[guards.CommonBatchNorm(), Ramp(sweep, rates)],
        saved=saved,
    )
    trainer.state.evaluators = []
    try:
        trainer.fit()
    finally:
        trainer.close()
    return sweep
