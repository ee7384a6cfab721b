"""Watches how long training waits for data, and says what to change when that is too long."""

from __future__ import annotations

import time

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from loaders.dataset import ImageDataset
from loaders.workers import WorkerLoader, cores
from recipes.algorithms._base import at_own_pace
from training.devices import say

WINDOW = 50  # steps
TOLERATED = 0.10  # of a window's time
_START_UP = 5  # steps in which the workers are still being started


class DataWait(Callback):
    """Measures, at each step, how long the loader kept the trainer waiting.

    Each rank counts what its own loader took to hand over a batch, however many microbatches are made of it. Ranks move
    in step, so that the one that waits longest delays all: `seconds` and `share` are its, exact to a window. Where
    ranks do not wait for each other a window's are this rank's own, and only an evaluation brings the longest.

    Args:
        loader: the training data of this rank; None when only evaluating.
    """

    def __init__(self, loader: WorkerLoader | None) -> None:
        self.loader = loader
        self.seconds = 0.0
        """Waited in all, of the rank that waited longest, as of the last window or evaluation."""
        self.share = 0.0
        """Of the last whole window's time, 0 to 1."""
        self._told = False
        self._before = 0.0  # what earlier processes of this run waited
        self._steps = -_START_UP
        self._spent = self._waited = 0.0  # seconds of the steps of this window, and of waiting in them
        self._mark = self._waited_then = 0.0

    def epoch_start(self, state: State, logger: Logger) -> None:
        """Start the clock of a step."""
        self._start()

    def eval_end(self, state: State, logger: Logger) -> None:
        """Bring `seconds` up to date, and leave the evaluation out of the window."""
        if state.timestamp.batch.value:
            (self.seconds,) = _largest(self.so_far)
        self._start()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Add a step to the window; close it when it is full."""
        self._steps += 1
        if self._steps > 0:
            self._spent += time.perf_counter() - self._mark
            self._waited += self.loader.waited - self._waited_then if self.loader else 0.0
        self._start()
        if self._steps < WINDOW:
            return
        share = self._waited / (self._spent or 1.0)
        self.share, self.seconds = (share, self.so_far) if at_own_pace(state) else _largest(share, self.so_far)
        logger.log_metrics({"data/wait_share": self.share})
        if self.share > TOLERATED and not self._told and self.loader is not None:
            self._told = True
            say(f"waiting for data {100 * self.share:.0f} % of the time: {advice(self.loader)}")
        self._steps, self._spent, self._waited = 0, 0.0, 0.0

    @property
    def so_far(self) -> float:
        """Seconds that this rank has waited until now."""
        return self._before + (self.loader.waited if self.loader else 0.0)

    def state_dict(self) -> dict[str, float]:
        """The seconds so far, as the row of the next evaluation counts them."""
        return {"seconds": _largest(self.so_far)[0]}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting from a checkpoint's seconds."""
        self._before = self.seconds = state["seconds"]

    def _start(self) -> None:
        self._mark = time.perf_counter()
        self._waited_then = self.loader.waited if self.loader else 0.0


def _largest(*values: float) -> list[float]:
    """The largest of each over all ranks."""
    if dist.get_world_size() == 1:
        return list(values)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, reduce_operation="MAX")
    return [float(value) for value in tensor]


def advice(loader: WorkerLoader) -> str:
    """The likely cause, and the next setting to change."""
    dataset: ImageDataset = loader.dataset  # type: ignore[assignment]
    if loader.num_workers == 0:
        return f"the trainer decodes the images itself; say train_dataset.num_workers={cores()}"
    if dataset.epoch == 0 and dataset.fetches:
        return (
            "this first epoch also downloads the shards; train_dataset.preload=/a/local/folder fetches them before "
            "training, the next epochs read the cache"
        )
    if loader.num_workers < cores():
        return (
            f"{loader.num_workers} workers on {cores()} cores per device decode too slowly; say "
            f"train_dataset.num_workers={cores()}"
        )
    kind = type(dataset).__name__
    remedies = {
        "storage=dali uses the GPU": torch.cuda.is_available() and not hasattr(loader, "device"),
        "storage=packed decodes once, if memory is large enough": kind != "PackedDataset",
        "smaller files decode faster (python -m tools.convert --max-size 500)": kind != "PackedDataset",
    }
    open_to_you = [remedy for remedy, is_new in remedies.items() if is_new]
    return (
        f"{loader.num_workers} workers keep all {cores()} cores of this device busy. "
        f"{'; '.join([*open_to_you, 'python -m benchmarks.data measures each kind'])}"
    )
