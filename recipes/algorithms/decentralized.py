"""Decentralized training: average weights with neighbors instead of gradients with all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from composer.core import Event, State
from composer.loggers import Logger
from composer.trainer.trainer import OOM_FOUND_ON_OTHER_RANK
from composer.utils import dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup, Work
from torch.nn.parallel import DistributedDataParallel

from common.errors import TrainingError
from recipes.algorithms._base import RecipeAlgorithm
from recipes.algorithms._own_pace import OwnPace
from recipes.topologies import DEFAULT, rounds

_SWAP_IN = (Event.EVAL_START, Event.PREDICT_START)
_SWAP_OUT = (Event.EVAL_END, Event.PREDICT_END)
_STEPS = (Event.BEFORE_DATALOADER, Event.BATCH_START, Event.AFTER_TRAIN_BATCH, Event.BATCH_END, Event.EPOCH_END)


class Decentralized(RecipeAlgorithm):
    """Every rank trains its own model and averages it with its neighbors' (Wang et al. 2025, arXiv 2410.11998).

    Step t of rank i: x_i(t+1) = mean of x_j(t) over its group in this step - the optimizer's update with the gradient
    at x_i(t). Groups change from step to step (recipes/topologies.py). The exchange of x(t) starts right after a step
    and overlaps with loading the next batch and computing its gradient; the mean replaces the weights just before the
    optimizer's update. Any optimizer, schedule, precision, clipping and microbatching therefore works unchanged.

    The model is the mean over all ranks; evaluation, prediction, `evaluation_weights` and the end of fit() use it. Then
    each rank's own weights are restored exactly. BatchNorm's running statistics, which training does not read, remain
    averaged (training/guards.py). The ranks' distance from the mean is logged at each evaluation.

    Args:
        topology: one of recipes.topologies.TOPOLOGIES; each needs certain numbers of ranks.
        lockstep: True keeps Composer's reductions in every batch, at which all ranks wait for the slowest one; the
            weights are identical. Always so with device_train_microbatch_size=auto.
    """

    BOUNDS = {"topology": "recipes.topologies:TOPOLOGIES"}
    NOT_WITH = {
        "sam": "the weights are averaged between its two gradients, which must be computed around the same point",
        "swa": "it averages each rank's own weights, and ends with those of rank 0",
    }
    RANKS = "recipes.topologies:misfit"
    NO_LR_FIND = "would find a different rate on each rank"
    ranks_differ = True  # training/rank_states.py saves every rank's own state next to a checkpoint

    def __init__(self, topology: str = DEFAULT, lockstep: bool = False) -> None:
        self.topology = topology
        self.lockstep = lockstep
        self.consensus_distance = 0.0
        self._pace = OwnPace()
        self._groups: list[tuple[ProcessGroup | None, int]] = []  # this rank's group in each round, and its size
        self._exchange: Work | None = None  # in progress since the end of the last step
        self._buffer = torch.empty(0)  # all weights, flattened, for the exchange
        self._own: Tensor | None = None  # this rank's weights, while the model holds the mean
        self._mean_before = False

    def match(self, event: Event, state: State) -> bool:
        """Run in every step and wherever the mean is needed, but never on a single rank."""
        wanted = (Event.FIT_START, Event.FIT_END, *_STEPS, *_SWAP_IN, *_SWAP_OUT)
        return event in wanted and dist.get_world_size() > 1

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Exchange or average weights, or swap those in the model with the mean."""
        if event in _STEPS:
            self._in_step(event, state)
        elif event == Event.FIT_START:
            self._put_back(state)
            self._prepare(state)
        elif event == Event.FIT_END:
            self._finish_exchange()
            self._pace.remove()
            self._put_in_mean(state)
        elif event in _SWAP_IN:
            self._mean_before = self._own is not None
            if not self._mean_before:
                relative = self._put_in_mean(state)
                names = {"consensus_distance": self.consensus_distance, "relative_consensus_distance": relative}
                logger.log_metrics({f"decentralized/{name}": value for name, value in names.items()})
        elif not self._mean_before:
            self._put_back(state)

    @contextmanager
    def evaluation_weights(self, state: State) -> Iterator[None]:
        """Context in which the model holds the mean of all ranks' weights; all ranks must enter it."""
        before = self._own is not None or dist.get_world_size() == 1
        if not before:
            self._put_in_mean(state)
        try:
            yield
        finally:
            if not before:
                self._put_back(state)

    def _in_step(self, event: Event, state: State) -> None:
        """Handle the events of a step before and after the optimizer's update."""
        if event == Event.BEFORE_DATALOADER:
            self._pace.active = not self.lockstep and not state.auto_microbatching
        elif event == Event.BATCH_START:
            _data_parallel(state).require_backward_grad_sync = False
            if self._exchange is None and state.timestamp.batch.value:
                self._start_exchange(state)  # repeats the one in progress when the checkpoint was saved
        elif event == Event.AFTER_TRAIN_BATCH:
            if state.auto_microbatching:
                _all_have_gradients(state)
            if self._exchange is not None:  # finished already in an optimizer's second pass over the batch
                self._finish_exchange()
                with torch.no_grad():
                    torch._foreach_copy_(_weights(state.model), _views(self._buffer, state.model))
        else:
            self._pace.active = False
            if event == Event.BATCH_END:
                self._start_exchange(state)

    def _prepare(self, state: State) -> None:
        """Disable gradient averaging and create the groups; all ranks create all of them in the same order."""
        parallel = _data_parallel(state)
        parallel.require_backward_grad_sync = parallel.broadcast_buffers = False
        self._pace.install()
        self._buffer = _flat(state.model)
        if self._groups:
            return
        per_node = dist.get_local_world_size()
        groups: dict[tuple[int, ...], ProcessGroup] = {}
        for round_ in rounds(self.topology, dist.get_world_size() // per_node, per_node):
            for ranks in round_:
                if len(ranks) > 1 and ranks not in groups:
                    groups[ranks] = torch.distributed.new_group(list(ranks))
                if dist.get_global_rank() in ranks:
                    self._groups.append((groups.get(ranks), len(ranks)))
        for ranks, group in groups.items():  # connect now; NCCL would do so during training
            if dist.get_global_rank() in ranks:
                torch.distributed.all_reduce(torch.zeros_like(self._buffer[:1]), group=group)

    @torch.no_grad()
    def _start_exchange(self, state: State) -> None:
        """Start summing the weights over this rank's group in the step that has finished."""
        group, size = self._groups[(state.timestamp.batch.value - 1) % len(self._groups)]
        if group is None:
            return
        torch._foreach_copy_(_views(self._buffer, state.model), _weights(state.model))
        self._buffer.mul_(1 / size)
        self._exchange = torch.distributed.all_reduce(self._buffer, group=group, async_op=True)

    def _finish_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.wait()
            self._exchange = None

    @torch.no_grad()
    def _put_in_mean(self, state: State) -> float:
        """Put the mean of all ranks' weights into the model, keeping this rank's own.

        Returns the root mean square of the ranks' distance from the mean, relative to the norm of the mean.
        """
        self._own = _flat(state.model)
        mean = self._own.clone()
        dist.all_reduce(mean)
        mean.div_(dist.get_world_size())
        square = (self._own - mean).square_().sum()
        dist.all_reduce(square)
        self.consensus_distance = math.sqrt(float(square) / dist.get_world_size())
        torch._foreach_copy_(_weights(state.model), _views(mean, state.model))
        return self.consensus_distance / max(float(mean.norm()), 1e-30)

    @torch.no_grad()
    def _put_back(self, state: State) -> None:
        """Restore this rank's own weights if the model holds the mean."""
        if self._own is not None:
            torch._foreach_copy_(_weights(state.model), _views(self._own, state.model))
            self._own = None


def _data_parallel(state: State) -> DistributedDataParallel:
    """Return the DDP wrapper, whose gradient averaging is disabled."""
    if not isinstance(state.model, DistributedDataParallel):
        raise TrainingError(
            f"decentralized needs DistributedDataParallel, but the model is a {type(state.model).__name__}; "
            "create the Trainer without parallelism_config"
        )
    return state.model


def _weights(model: nn.Module) -> list[Tensor]:
    """Return the trained parameters: frozen ones are the same on every rank, but rounding would change their mean."""
    return [p.detach() for p in model.parameters() if p.requires_grad]


def _flat(model: nn.Module) -> Tensor:
    """Return a flat copy of all parameters, each in its memory order."""
    weights = _weights(model)
    flat = weights[0].new_empty(sum(p.numel() for p in weights))
    torch._foreach_copy_(_views(flat, model), weights)
    return flat


def _views(flat: Tensor, model: nn.Module) -> list[Tensor]:
    """Split flattened weights into views with the shapes and strides of the parameters."""
    views, start = [], 0
    for p in _weights(model):
        views.append(flat.as_strided(p.shape, p.stride(), start))
        start += p.numel()
    return views


def _all_have_gradients(state: State) -> None:
    """Repeat Composer's out-of-memory handshake before the weights change: either all ranks step, or all retry.

    Composer's, after the forward pass, relies on gradient averaging for a rank that runs out in its backward pass.
    """
    short = state.device.tensor_to_device(torch.tensor([0], dtype=torch.uint8))
    dist.all_reduce(short, "MAX")
    finished = state.device.tensor_to_device(torch.tensor([0], dtype=torch.uint8))
    dist.all_reduce(finished, "MIN")
    if short.item():
        raise RuntimeError(OOM_FOUND_ON_OTHER_RANK)
