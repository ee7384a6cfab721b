"""Checkpoints that are whole or absent: written aside and renamed, verified before use, the newest good one found."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, Event, State, TimeUnit
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, reproducibility
from omegaconf import DictConfig

from config import ConfigError, Run, TrainingError, UserError
from loaders.errors import named
from recipes.algorithms import at_own_pace
from training import rank_states
from training.devices import on_rank_zero, say
from training.guards import average_batchnorm
from training.interrupt import Interrupted, StopRequest
from training.record import LATEST
from training.saved import Saved, read_checkpoint
from training.storage import Folder, open_folder, split
from training.whole_files import is_whole, write

NAME = "ep{epoch}-ba{batch}-rank0.pt"
BEST = "best-rank0.pt"
_PATTERN = re.compile(r"^ep(\d+)-ba(\d+)-rank0\.pt$")


class Checkpoints(Callback):
    """Saves the state at an interval, at the end, on a better top-1, and when the run is asked to stop.

    Args:
        folder: where; None saves nothing, and only the request to stop is watched.
        interval: a Composer time string.
        keep: how many of the newest to keep, -1 for all; the best one is kept beside them.
        stop: the request to stop; honoured after a batch or an epoch, once the checkpoint is written.
    """

    def __init__(self, folder: Folder | None, interval: str, keep: int, stop: StopRequest) -> None:
        self.folder, self.keep, self.stop = folder, keep, stop
        self.source: Folder | None = None  # where the run started from, if it was a checkpoint
        self._is_due = create_interval_scheduler(interval, include_end_of_training=True)
        self._due = False
        self._own: list[str] = []  # this run's checkpoints, oldest first; all others in the folder are overtaken
        self._best = float("-inf")
        self._improved = False

    def fit_start(self, state: State, logger: Logger) -> None:
        """Take up the checkpoints that lie before the point that the run goes on from.

        As rank 0 sees them: a node without the folder would think nothing saved, and enter a save that others skip.
        """
        if self.folder is not None and state.timestamp.batch.value:
            names = on_rank_zero(newest_first, self.folder)[::-1]
            self._own = [name for name in names if _batch_of(name) <= state.timestamp.batch.value]

    def eval_end(self, state: State, logger: Logger) -> None:
        """Note whether this evaluation is the best so far."""
        metric = state.eval_metrics.get("eval", {}).get("MulticlassAccuracy")
        if metric is not None and state.timestamp.batch.value and float(metric.compute()) > self._best:
            self._best, self._improved = float(metric.compute()), True

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save if it is due; stop if that was asked."""
        self._save_if_due(state, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save if it is due; stop if that was asked."""
        self._save_if_due(state, Event.EPOCH_CHECKPOINT)

    def restore_ranks(self, state: State) -> None:
        """Give every rank the state of its own that was saved beside the checkpoint which the Trainer has loaded."""
        if self.source is not None:
            rank_states.restore(state, self.source, _base(_name(state)))

    def finish(self, state: State) -> None:
        """Keep the weights of the run's last evaluation if they are the best: it comes after the last checkpoint."""
        if self._improved:
            self._save_best(state)

    def state_dict(self) -> dict[str, Any]:
        """The best top-1 so far."""
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict()."""
        self._best = state["best"]

    def _save_if_due(self, state: State, event: Event) -> None:
        signum = self._asked_to_stop(state, event)
        self._due |= self._is_due(state, event)
        if event == Event.BATCH_CHECKPOINT and not signum and _epoch_is_over(state):
            return
        due, self._due = self._due or bool(signum), False
        if due and not self._is_saved(state):
            self._save(state)
        elif self._improved:
            self._save_best(state)
        if signum:
            raise Interrupted(signum)

    def _asked_to_stop(self, state: State, event: Event) -> int:
        """The signal that any rank received; in mid-epoch a few batches late where ranks do not wait for each other."""
        if at_own_pace(state) and event == Event.BATCH_CHECKPOINT and not _epoch_is_over(state):
            return self.stop.lately_on_any_rank(state)
        return self.stop.on_any_rank(state)

    def _is_saved(self, state: State) -> bool:
        return bool(self._own) and _batch_of(self._own[-1]) == state.timestamp.batch.value

    def _save(self, state: State) -> None:
        if self.folder is None:
            return
        name = _name(state)
        rank_states.save(state, self.folder, _base(name))
        save(state, self.folder, name)
        self._own.append(name)
        if self.keep > 0:
            self._own = self._own[-self.keep :]
        on_rank_zero(_tidy, self.folder, self._own, self._improved)
        self._improved = False

    def _save_best(self, state: State) -> None:
        if self.folder is not None and self._is_saved(state):
            on_rank_zero(self.folder.copy, self._own[-1], BEST)
        elif self.folder is not None:
            save(state, self.folder, BEST)
        self._improved = False


def _tidy(folder: Folder, own: list[str], is_best: bool) -> None:
    """After a checkpoint: keep a copy if it is the best, point to it as the latest, delete what is not to be kept."""
    if is_best:
        folder.copy(own[-1], BEST)
    folder.point(LATEST, own[-1])
    for name in newest_first(folder):
        if name not in own:
            folder.delete(name)
    rank_states.tidy(folder, map(_base, own))


def _name(state: State) -> str:
    return NAME.format(epoch=state.timestamp.epoch.value, batch=state.timestamp.batch.value)


def _base(name: str) -> str:
    return name.removesuffix("-rank0.pt")


def _batch_of(name: str) -> int:
    match = _PATTERN.match(name)
    assert match, f"{name} is no checkpoint's name"
    return int(match[2])


def _epoch_is_over(state: State) -> bool:
    """Whether the epoch's end follows at once: a checkpoint is due after its evaluation then, not before."""
    assert state.max_duration is not None
    return state.max_duration.unit == TimeUnit.EPOCH and state.timestamp.batch_in_epoch == state.dataloader_len


def save(state: State, folder: Folder, name: str) -> None:
    """Write the state, and the random states of all ranks, under a name; every rank calls this, rank 0 writes.

    Raises:
        TrainingError: if a weight is not a finite number; the checkpoints already there stay the last good ones.
        UserError: if the folder cannot be written.
    """
    with _evaluation_weights(state):
        average_batchnorm(state)
        _check_finite(state)
        content = {"state": state.state_dict(), "rng": reproducibility.get_rng_state()}
        on_rank_zero(write, content, folder, name)


@contextmanager
def _evaluation_weights(state: State) -> Iterator[None]:
    """Let every averaging algorithm put in the weights that it wants evaluated and saved."""
    with ExitStack() as stack:
        for algorithm in state.algorithms:
            if hasattr(algorithm, "evaluation_weights"):
                stack.enter_context(algorithm.evaluation_weights(state))
        yield


def _check_finite(state: State) -> None:
    norms = torch.stack(torch._foreach_norm([p.detach() for p in state.model.parameters()]))
    if not bool(torch.isfinite(norms).all()):
        raise TrainingError(
            f"a weight is not a finite number after batch {state.timestamp.batch.value}; nothing was saved. "
            "Lower optimizer.lr, or lengthen scheduler.t_warmup"
        )


def newest_first(folder: Folder) -> list[str]:
    """The checkpoints in a folder, by batch."""
    found = [(int(match[2]), int(match[1]), name) for name in folder.names() if (match := _PATTERN.match(name))]
    return [name for _, _, name in sorted(found, reverse=True)]


def for_run(run: Run, folder_name: str, stop: StopRequest) -> Checkpoints:
    """The callback that saves this run, its folder tried now rather than after the first epoch.

    Raises:
        UserError: if the folder cannot be written, or holds another run's checkpoints.
    """
    config = run.config
    folder = None
    if config.save_folder and config.is_train:
        path = config.save_folder.replace("{run_name}", folder_name).replace("{runs_folder}", config.runs_folder)
        folder = open_folder(path)
        on_rank_zero(_check_folder, folder, config.autoresume or config.save_overwrite)
    return Checkpoints(folder, config.save_interval, config.save_num_checkpoints_to_keep, stop)


def _check_folder(folder: Folder, may_hold_some: bool) -> None:
    folder.check_writable()
    if not may_hold_some and (there := newest_first(folder)):
        raise ConfigError(
            f"save_folder: {folder} holds checkpoints already ({', '.join(there[:3])}). Go on from them by "
            "autoresume=true, write over them by save_overwrite=true, or give another save_folder="
        )


def to_start_from(config: DictConfig, saver: Checkpoints) -> Saved | None:
    """The checkpoint that a run starts from; None for none.

    Under autoresume the newest whole one of the run's own, else load_path, in which '{rank}' and 'latest-rank0.pt' are
    understood.

    Raises:
        UserError: if load_path does not exist, is damaged or is no checkpoint.
    """
    if not config.is_train and not config.load_path:
        say("no load_path was given: this evaluates untrained weights")
    address = on_rank_zero(_newest_whole, saver.folder) if config.autoresume and saver.folder else None
    address = address or (config.load_path and on_rank_zero(_existing, config.load_path))
    if not address:
        return None
    folder, name = split(address)
    if config.is_train and not config.load_weights_only:
        saver.source = folder
    return read_checkpoint(folder, name, config.load_unsafe_pickle)


def _newest_whole(folder: Folder) -> str | None:
    with tempfile.TemporaryDirectory() as scratch:
        for name in newest_first(folder):
            if is_whole(folder.fetch(name, Path(scratch))):
                say(f"resuming from {folder}/{name}")
                return f"{folder}/{name}"
            say(f"{folder}/{name} is damaged (cut short or changed): passed over, the one before it is tried")
    return None


def _existing(load_path: str) -> str:
    path = load_path.replace("{rank}", "0").rstrip("/")
    folder, name = split(path)
    names = folder.names()
    if name == LATEST and name not in names and (newest := newest_first(folder)):
        name = newest[0]
    if name in names and not Path(path).is_dir():
        return f"{folder}/{name}"
    for inside in (path, f"{path}/checkpoints"):
        if there := [n for n in open_folder(inside).names() if n.endswith(".pt")]:
            best = next((n for n in (LATEST, BEST) if n in there), there[-1])
            raise UserError(
                f"load_path: {path} is a folder; name a checkpoint, it holds {named(there)}. "
                f"Type: load_path={inside}/{best}"
            )
    there = [n for n in names if n.endswith(".pt")]
    raise UserError(f"load_path: there is no {folder}/{name}; that folder holds {named(there) or 'no checkpoint'}")
