"""What a person sees: one progress bar for the whole run, a line per evaluation, a table at the end."""

from __future__ import annotations

import time
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.recorder import Recorder

# Without a terminal the bar is replaced by a line every so many seconds, so that a log file stays readable.
LOG_SECONDS = 60.0
# Rates are taken over this many seconds: long enough to be steady, short enough to show a stall.
RATE_SECONDS = 10.0


class ProgressLine(Callback):
    """Shows the run on rank 0: epoch, loss, top-1 and img/s with the time left, and a line per evaluation.

    Args:
        recorder: measures the run.
        bar: whether to show the bar (or, without a terminal, a line a minute) between the evaluations.
    """

    def __init__(self, recorder: Recorder, bar: bool) -> None:
        self.recorder, self.console, self.bar = recorder, Console(), bar
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._window: list[tuple[float, int]] = []
        self._logged = time.monotonic()
        self._shown = 0.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start the bar where the run stands."""
        if dist.get_global_rank() == 0 and self.bar and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=self.console,
                expand=True,
            )
            self._task = self._progress.add_task("epoch 1", total=1.0, figures="")
            self._progress.start()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Move the bar, at most ten times a second."""
        now = time.monotonic()
        if dist.get_global_rank() != 0 or not self.bar or now - self._shown < 0.1:
            return
        self._shown = now
        self._window.append((now, state.timestamp.sample.value))
        while now - self._window[0][0] > RATE_SECONDS:
            self._window.pop(0)
        if self._progress is not None:
            done = float(state.get_elapsed_duration() or 0)
            epoch = f"epoch {state.timestamp.epoch.value + 1}/{_epochs(state)}"
            self._progress.update(self._task, completed=done, description=epoch, figures=self._figures(state))
        elif now - self._logged > LOG_SECONDS:
            self._logged = now
            done = 100 * float(state.get_elapsed_duration() or 0)
            epoch = f"epoch {state.timestamp.epoch.value + 1}/{_epochs(state)}"
            self.console.print(f"{epoch} {done:.0f}% {self._figures(state)}")

    def eval_end(self, state: State, logger: Logger) -> None:
        """Print the evaluation's line."""
        if dist.get_global_rank() != 0 or not state.timestamp.batch.value or not self.recorder.folder.rows:
            return
        row = self.recorder.folder.rows[-1]
        loss = f"loss {row['train_loss']:.4f}  " if row["train_loss"] != "" else ""
        rate = f"{row['samples_per_second']:,.0f} img/s  " if row["samples_per_second"] != "" else ""
        self.console.print(
            f"epoch {row['epoch']:>3}/{_epochs(state)}  {loss}val loss {row['val_loss']:.4f}  "
            f"top-1 {row['top1']:.2f} %  top-5 {row['top5']:.2f} %  {rate}"
            f"lr {row['lr']:<9.4g}  {row['image_size']} px  {_clock(row['total_seconds'])}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self, state: State, logger: Logger) -> None:
        """Take the bar away, however the run ended."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away; calling it twice is harmless."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _figures(self, state: State) -> str:
        (t0, n0), (t1, n1) = self._window[0], self._window[-1]
        rate = f"{(n1 - n0) / (t1 - t0):,.0f} img/s" if t1 > t0 else "... img/s"
        rows = self.recorder.folder.rows
        top1 = f"top-1 {float(rows[-1]['top1']):.2f} %" if rows else "top-1 ..."
        wait = f"  waiting {100 * share:.0f} %" if (share := self.recorder.wait_share) >= 0.01 else ""
        return f"loss {state.total_loss_dict['loss/train/total']:.3f}  {top1}  {rate}{wait}"


def summary_table(summary: dict[str, Any], folder: str | None) -> Table:
    """The table that a run ends with; no folder when the run was an evaluation alone."""
    table = Table(title=f"{summary['run_name']}: {summary['ended']}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    figures = {
        "top-1": _percent(summary["top1"])
        + (f"  (best {_percent(summary['best_top1'])})" if summary["best_top1"] else ""),
        "top-5": _percent(summary["top5"]),
        "val loss": "-" if summary["val_loss"] is None else f"{summary['val_loss']:.4f}",
        "seconds training": f"{summary['train_seconds']:.1f}" if summary["train_seconds"] else "",
        "seconds evaluating": f"{summary['eval_seconds']:.1f}",
        "seconds in total": f"{summary['total_seconds']:.1f}",
        "img/s training": f"{summary['samples_per_second']:,.0f}" if summary["train_seconds"] else "",
        "run folder": folder or "",
        "repeat it with": summary["command"],
    }
    for name, value in figures.items():
        if value:
            table.add_row(name, value)
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _epochs(state: State) -> int:
    """Epochs of the whole run, a started one included."""
    assert state.max_duration is not None
    if state.max_duration.unit.value == "ep":
        return state.max_duration.value
    batches = state.max_duration.value if state.max_duration.unit.value == "ba" else state.timestamp.batch.value
    return max(1, -(-batches // max(1, int(state.dataloader_len or 1))))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(float(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
