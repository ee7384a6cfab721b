"""Measure how long training waits for data, and advise what to change if that is too long."""

import time

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from loaders.dataset import ImageDataset
from loaders.storage.kinds import KINDS
from loaders.workers import WorkerLoader, cores
from recipes.algorithms._base import at_own_pace
from training.devices import say

WINDOW = 50  # steps
TOLERATED = 0.10  # fraction of a window's time
_START_UP = 5  # steps during which workers are still starting


class DataWait(Callback):
    """Measure how long the loader keeps the trainer waiting for each batch.

    Ranks run in lockstep, so the slowest loader sets the pace: `seconds` and `share` are the slowest rank's, refreshed
    once per window. If ranks do not wait for each other, they are this rank's own, and only an evaluation refreshes
    `seconds` with the slowest rank's. Without a loader (evaluation only), there is nothing to wait for.
    """

    def __init__(self, loader: WorkerLoader | None, storage: str | None = None) -> None:
        self.loader, self.storage = loader, storage
        self.seconds = 0.0  # as of the last window or evaluation
        self.share = 0.0  # of the last full window's time, 0 to 1
        self._advised = False
        self._before = 0.0  # seconds waited by earlier processes of this run
        self._steps = -_START_UP
        self._spent = self._waited = 0.0  # seconds in this window, and seconds waited in it
        self._mark = self._waited_then = 0.0

    def epoch_start(self, state: State, logger: Logger) -> None:
        """Start the clock of a step."""
        self._start()

    def eval_end(self, state: State, logger: Logger) -> None:
        """Refresh `seconds`, and exclude the evaluation from the window."""
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
        if self.share > TOLERATED and not self._advised and self.loader is not None:
            self._advised = True
            say(f"waiting for data {100 * self.share:.0f} % of the time: {advice(self.loader, self.storage)}")
        self._steps, self._spent, self._waited = 0, 0.0, 0.0

    @property
    def so_far(self) -> float:
        """Seconds that this rank has waited until now, earlier processes included."""
        return self._before + (self.loader.waited if self.loader else 0.0)

    def state_dict(self) -> dict[str, float]:
        """Return the slowest rank's seconds."""
        return {"seconds": _largest(self.so_far)[0]}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting from a checkpoint's seconds."""
        self._before = self.seconds = state["seconds"]

    def _start(self) -> None:
        self._mark = time.perf_counter()
        self._waited_then = self.loader.waited if self.loader else 0.0


def _largest(*values: float) -> list[float]:
    """Return the maximum of each value over all ranks."""
    if dist.get_world_size() == 1:
        return list(values)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, reduce_operation="MAX")
    return [float(value) for value in tensor]


def advice(loader: WorkerLoader, storage: str | None) -> str:
    """Return the likely cause and the next setting to change for the loader of a storage kind."""
    dataset: ImageDataset = loader.dataset  # type: ignore[assignment]
    if loader.num_workers == 0:
        return f"the trainer decodes the images itself; set train_dataset.num_workers={cores()}"
    if dataset.epoch == 0 and dataset.fetches:
        return (
            "this first epoch also downloads the shards; train_dataset.preload=/a/local/folder downloads them before "
            "training, and later epochs read the cache"
        )
    if loader.num_workers < cores():
        return (
            f"{loader.num_workers} workers on {cores()} cores per device decode too slowly; set "
            f"train_dataset.num_workers={cores()}"
        )
    offered = {name: kind for name, kind in KINDS.items() if kind.remedy and name != storage}
    # Batches for a GPU are pinned.
    useful = {name: kind for name, kind in offered.items() if loader.pin_memory or not kind.needs_gpu}
    remedies = [f"storage={name} {kind.remedy}" for name, kind in useful.items()]
    if storage not in KINDS or not KINDS[storage].decoded:
        remedies.append("smaller files decode faster (python -m tools.convert --max-size 500)")
    return (
        f"{loader.num_workers} workers keep all {cores()} cores of this device busy. "
        f"{'; '.join([*remedies, 'python -m benchmarks.data measures each kind'])}"
    )
