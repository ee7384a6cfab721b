"""SIGTERM and Ctrl-C: finish the batch, save, complete the run folder, exit with 128 + signal."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import cast

import torch
from composer.core import State
from composer.utils import dist
from torch import Tensor
from torch.distributed import Work

# A launcher passes on the signal that it got itself; a repetition within this many seconds is that echo.
ECHO_SECONDS = 2.0
AGREE_EVERY = 8  # batches: how late ranks that do not wait for each other learn that one was asked to stop


class Interrupted(SystemExit):
    """Ends a run that was asked to stop, after its checkpoint is written. Its exit status is 128 + the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}"


class StopRequest:
    """Remembers the first SIGTERM or SIGINT; a second one ends the process at once.

    Composer's own handlers exit in mid-batch and save nothing, so these replace them, for the time of a fit.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since = 0.0
        self._before: dict[int, object] = {}
        self._question: tuple[Work, Tensor] | None = None  # under way in lately_on_any_rank()

    def __enter__(self) -> StopRequest:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._before[signum] = signal.signal(signum, self._note)
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
        # os.write, because a signal may arrive in the middle of a print.
        os.write(2, f"\n{name}: finishing this batch and saving; once more to stop at once\n".encode())

    def on_any_rank(self, state: State) -> int:
        """The signal that any rank has received, or 0: all ranks must stop after the same batch."""
        if dist.get_world_size() == 1:
            return self.signum
        signum = state.device.tensor_to_device(torch.tensor(self.signum))
        dist.all_reduce(signum, "MAX")
        return int(signum.item())

    def lately_on_any_rank(self, state: State) -> int:
        """As on_any_rank(), for ranks that do not wait for each other; to be called after every batch.

        It is asked at every eighth batch and answered at the next such one, 0 between: on all ranks at the same batch,
        and none waits for one that is less than eight batches behind.
        """
        if state.timestamp.batch.value % AGREE_EVERY:
            return 0
        answer = 0
        if self._question is not None:
            work, largest = self._question
            work.wait()
            answer = int(largest.item())
        signum = state.device.tensor_to_device(torch.tensor(self.signum))
        work = torch.distributed.all_reduce(signum, torch.distributed.ReduceOp.MAX, async_op=True)
        self._question = (cast(Work, work), signum)
        return answer
