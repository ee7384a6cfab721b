"""Handle SIGTERM and Ctrl-C: finish the batch, save, complete the run folder, exit with 128 + signal."""

import os
import signal
import time
from types import FrameType
from typing import Self, cast

import torch
from composer.core import State
from composer.utils import dist
from torch import Tensor
from torch.distributed import Work

# A launcher forwards the signal that it received; a second signal within this time is that echo.
ECHO_SECONDS = 2.0
AGREE_EVERY = 8  # batches between exchanges of the signal, for ranks that do not wait for each other


class Interrupted(SystemExit):
    """Exit after a signal, once the checkpoint is written; the exit status is 128 + the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"


class StopRequest:
    """Record the first SIGTERM or SIGINT; exit at once on a second one.

    This replaces Composer's handlers during fit: they exit in mid-batch and save nothing.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since = 0.0
        self._before: dict[int, object] = {}
        self._pending: tuple[Work, Tensor] | None = None  # all-reduce started by lately_on_any_rank()

    def __enter__(self) -> Self:
        self._before = {signum: signal.signal(signum, self._note) for signum in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:
            if time.monotonic() - self._since > ECHO_SECONDS:
                os._exit(128 + signum)
            return
        self.signum, self._since = signum, time.monotonic()
        name = signal.Signals(signum).name
        # os.write, because the signal may interrupt a print.
        os.write(2, f"\n{name}: finishing this batch and saving; repeat it to stop at once\n".encode())

    def on_any_rank(self, state: State) -> int:
        """Return the signal that any rank has received, or 0: all ranks must stop after the same batch."""
        if dist.get_world_size() == 1:
            return self.signum
        signum = state.device.tensor_to_device(torch.tensor(self.signum))
        dist.all_reduce(signum, "MAX")
        return int(signum.item())

    def lately_on_any_rank(self, state: State) -> int:
        """Like on_any_rank(), for ranks that do not wait for each other; call it after every batch.

        Every AGREE_EVERY batches an asynchronous all-reduce starts, and its result is returned that many batches later:
        all ranks see it at the same batch, and none waits for a rank that is fewer batches behind.
        """
        if state.timestamp.batch.value % AGREE_EVERY:
            return 0
        received = 0
        if self._pending is not None:
            work, largest = self._pending
            work.wait()
            received = int(largest.item())
        signum = state.device.tensor_to_device(torch.tensor(self.signum))
        work = torch.distributed.all_reduce(signum, torch.distributed.ReduceOp.MAX, async_op=True)
        self._pending = (cast(Work, work), signum)
        return received
