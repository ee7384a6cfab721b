"""Show the run: one progress bar, a line per evaluation, a table at the end."""

import time
from collections.abc import Sized
from typing import Any, cast

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from common.terminal import LOG_SECONDS, Rate, bar, clock, console
from config.schema import LOSSES, MIRRORED, MOST_WITHOUT_TOP5
from training.recorder import Recorder


class ProgressLine(Callback):
    """Show the run on rank 0: a line per evaluation; with `bar`, its progress in between.

    The bar shows epoch, loss, top-1, img/s and the time left; without a terminal, it is a line per minute.
    """

    def __init__(self, recorder: Recorder, bar: bool) -> None:
        self.recorder, self.console, self.bar = recorder, console(log_width=80), bar
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._rate = Rate()
        self._logged = time.monotonic()
        self._shown = 0.0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start the bar."""
        if dist.get_global_rank() == 0 and self.bar and self.console.is_interactive:
            left = TimeRemainingColumn(elapsed_when_finished=False)
            self._progress = bar(self.console, TextColumn("left"), left)
            self._task = self._progress.add_task("epoch 1", total=1.0, figures="")
            self._progress.start()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Move the bar, at most ten times per second and always at the end of the run."""
        now, done = time.monotonic(), _done(state)
        if dist.get_global_rank() != 0 or not self.bar or (now - self._shown < 0.1 and done < 1):
            return
        self._shown = now
        self._rate.add(now, state.timestamp.sample.value)
        epoch = f"epoch {state.timestamp.epoch.value + 1}/{_epochs(state)}"
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=epoch, figures=self._figures(state))
        elif now - self._logged > LOG_SECONDS:
            self._logged = now
            self.console.print(f"{epoch} {100 * done:.0f}% {self._figures(state)}")

    def eval_end(self, state: State, logger: Logger) -> None:
        """Print the evaluation's line."""
        if dist.get_global_rank() != 0 or not state.timestamp.batch.value or not self.recorder.folder.rows:
            return
        row = self.recorder.folder.rows[-1]
        model = self.recorder.folder.run.config.model
        train, val = LOSSES[model.loss_name]
        loss = f"{train} {row['train_loss']:.4f}  " if row["train_loss"] != "" else ""
        top5 = f"top-5 {row['top5']:.2f} %  " if model.classes > MOST_WITHOUT_TOP5 else ""
        mirrored = f"mirrored too {row['top1_tta']:.2f} %  " if "top1_tta" in row else ""
        rate = f"{row['samples_per_second']:,.0f} img/s  " if row["samples_per_second"] != "" else ""
        started = state.timestamp.epoch.value + (state.timestamp.batch_in_epoch.value > 0)
        self.console.print(
            f"epoch {started:>3}/{_epochs(state)}  {loss}{val} {row['val_loss']:.4f}  "
            f"top-1 {row['top1']:.2f} %  {top5}{mirrored}{rate}"
            f"lr {row['lr']:<9.4g}  {row['image_size']} px  {clock(int(float(row['total_seconds'])))}",
        )

    def close(self, state: State, logger: Logger) -> None:
        """Remove the bar; safe to call twice."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _figures(self, state: State) -> str:
        speed = self._rate.per_second
        rate = f"{speed:,.0f} img/s" if speed else "... img/s"
        rows = self.recorder.folder.rows
        top1 = f"top-1 {float(rows[-1]['top1']):.2f} %" if rows else "top-1 ..."
        wait = f"  waiting {100 * share:.0f} %" if (share := self.recorder.data_wait.share) >= 0.01 else ""
        loss, _ = LOSSES[self.recorder.folder.run.config.model.loss_name]
        return f"{loss} {state.total_loss_dict['loss/train/total']:.3f}  {top1}  {rate}{wait}"


def print_summary(console: Console, summary: dict[str, Any], model: Any, folder: str | None) -> None:
    """Print the final table, and below it the command that repeats the run, on one line for copying."""
    table = Table(title=f"{summary['run_name']}: {summary['ended']}", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    figures = {
        "top-1": _percent(summary["top1"])
        + (f"  (best {_percent(summary['best_top1'])})" if summary["best_top1"] else ""),
        "top-5": _percent(summary["top5"]) if model.classes > MOST_WITHOUT_TOP5 else "",
        MIRRORED["top1_tta"]: _percent(summary["top1_tta"]) if "top1_tta" in summary else "",
        LOSSES[model.loss_name][1]: "-" if summary["val_loss"] is None else f"{summary['val_loss']:.4f}",
        "seconds training": f"{summary['train_seconds']:.1f}" if summary["train_seconds"] else "",
        "seconds evaluating": f"{summary['eval_seconds']:.1f}",
        "seconds in total": f"{summary['total_seconds']:.1f}",
        "img/s training": f"{summary['samples_per_second']:,.0f}" if summary["train_seconds"] else "",
        "peak GPU memory": f"{peak / 1024:.2f} GiB" if (peak := summary.get("peak_gpu_mib")) else "",
        "run folder": folder or "",
    }
    for name, value in figures.items():
        if value:
            table.add_row(name, value)
    console.print(table)
    console.print(f"repeat it with: {summary['command']}", highlight=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _done(state: State) -> float:
    """Return the share of the run that is done, batch by batch (Composer's own may count whole epochs only)."""
    assert state.max_duration is not None
    now = state.timestamp
    if state.max_duration.unit.value != "ep":
        return float(state.get_elapsed_duration() or 0)
    share = now.batch_in_epoch.value / len(cast(Sized, state.train_dataloader))
    return (now.epoch.value + share) / state.max_duration.value


def _epochs(state: State) -> int:
    """Return the run's number of epochs, a started one included."""
    assert state.max_duration is not None
    if state.max_duration.unit.value == "ep":
        return state.max_duration.value
    now = state.timestamp
    # Earlier epochs may have had another length, so the rest is counted from the start of this one.
    left = state.max_duration.value - now.batch.value if state.max_duration.unit.value == "ba" else 0
    started = now.batch_in_epoch.value + left
    return max(1, now.epoch.value - (-started // len(cast(Sized, state.train_dataloader))))
