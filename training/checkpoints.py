"""Checkpoints that are whole or absent: written aside and renamed, verified before use, the newest good one found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, Event, State, TimeUnit
from composer.loggers import Logger
from composer.utils import create_interval_scheduler, dist, reproducibility

from common.errors import named
from common.folders import Folder, open_folder, split
from config import ConfigError, Run, TrainingError, UserError
from config.schema import Config
from recipes.algorithms._base import at_own_pace, ours
from training import rank_states
from training.checkpoint_files import check_writable, remove_dead, write
from training.devices import on_local_leaders, on_rank_zero, say
from training.guards import average_batchnorm
from training.interrupt import Interrupted, StopRequest
from training.kept import BEST, base_of, batch_of, check_room, clear, newest_first, tidy
from training.record import LATEST
from training.saved import CheckpointError, Saved, fetch_whole, read_checkpoint

NAME = "ep{epoch}-ba{batch}-rank0.pt"
_KEEP_BEST = {"Checkpoints", "EarlyStopper"}  # callbacks whose state is what a run has reached


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
        self._has_room = folder is None  # found out once a batch has given the optimizer its state
        self._own: list[str] = []  # this run's checkpoints, oldest first; all others in the folder are overtaken
        self._best = float("-inf")
        self._improved = False  # and no copy of these weights is kept yet
        self.is_over = False  # as the checkpoint says: at its full length, or because a callback ended the run

    def fit_start(self, state: State, logger: Logger) -> None:
        """Take up the checkpoints of the run so far."""
        self.catch_up(state)

    def catch_up(self, state: State) -> None:
        """Take up the checkpoints before the point that the run goes on from, and do what a kill left undone there.

        As rank 0 sees them: a node without the folder would think nothing saved, and enter a save that others skip.
        """
        if self.folder is None:
            return
        names = on_rank_zero(newest_first, self.folder)[::-1]
        self._keep([name for name in names if batch_of(name) <= state.timestamp.batch.value])
        if not state.timestamp.batch.value:
            on_rank_zero(clear, self.folder)
            self._own = []
        elif self._is_saved(state) and str(self.source) == str(self.folder):
            on_rank_zero(tidy, self.folder, self._own, self._improved)
        self._improved = False  # another folder's best stays there

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
            rank_states.restore(state, self.source, base_of(_name(state)))

    def finish(self, state: State) -> None:
        """Keep the weights of the run's last evaluation if they are the best: it comes after the last checkpoint."""
        if self._improved:
            self._save_best(state)

    def state_dict(self) -> dict[str, Any]:
        """The best top-1 so far, whether this very state has it, and whether the run ends with it."""
        return {"best": self._best, "improved": self._improved, "is_over": self.is_over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict(), if this run goes on."""
        self._best = state.get("best", self._best)
        self._improved, self.is_over = state.get("improved", False), state.get("is_over", False)

    def _save_if_due(self, state: State, event: Event) -> None:
        if self.folder is not None and not self._has_room:
            on_rank_zero(check_room, self.folder, state.state_dict(), self.keep, self._own)
            self._has_room = True
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
        return bool(self._own) and batch_of(self._own[-1]) == state.timestamp.batch.value

    def _save(self, state: State) -> None:
        if self.folder is None:
            return
        name = _name(state)
        self.is_over = state.max_duration is not None and state.timestamp >= state.max_duration
        rank_states.save(state, self.folder, base_of(name))
        save(state, self.folder, name)
        self._keep([*self._own, name])
        on_rank_zero(tidy, self.folder, self._own, self._improved)
        self._improved = False

    def _keep(self, names: list[str]) -> None:
        self._own = names[-self.keep :] if self.keep > 0 else names

    def _save_best(self, state: State) -> None:
        if self.folder is not None and self._is_saved(state):
            on_rank_zero(self.folder.copy, self._own[-1], BEST)
        elif self.folder is not None:
            save(state, self.folder, BEST)
        self._improved = False


def _name(state: State) -> str:
    return NAME.format(epoch=state.timestamp.epoch.value, batch=state.timestamp.batch.value)


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
        for algorithm in ours(state.algorithms):
            stack.enter_context(algorithm.evaluation_weights(state))
        yield


def _check_finite(state: State) -> None:
    norms = torch.stack(torch._foreach_norm([p.detach() for p in state.model.parameters()]))
    if not bool(torch.isfinite(norms).all()):
        raise TrainingError(
            f"a weight is not a finite number after batch {state.timestamp.batch.value}; nothing was saved. "
            "Lower optimizer.lr, or lengthen scheduler.t_warmup"
        )


def for_run(run: Run, folder_name: str, stop: StopRequest) -> Checkpoints:
    """The callback that saves this run, its folder tried now rather than after the first epoch.

    Raises:
        UserError: if the folder cannot be written, or holds another run's checkpoints.
    """
    config = run.config
    folder = None
    if config.is_train and (path := config.checkpoint_folder(folder_name)):
        folder = open_folder(path)
        on_rank_zero(_check_folder, folder, config.autoresume or config.save_overwrite)
        on_local_leaders(remove_dead, folder)
    return Checkpoints(folder, config.save_interval, config.save_num_checkpoints_to_keep, stop)


def _check_folder(folder: Folder, may_hold_some: bool) -> None:
    check_writable(folder)
    if not may_hold_some and (there := newest_first(folder)):
        raise ConfigError(
            f"save_folder: {folder} holds checkpoints already ({', '.join(there[:3])}). Go on from them by "
            "autoresume=true, write over them by save_overwrite=true, or give another save_folder=FOLDER"
        )


def to_start_from(config: Config, saver: Checkpoints) -> Saved | None:
    """The checkpoint that a run starts from; None for none.

    Under autoresume the newest whole one of the run's own, else load_path, in which '{rank}' and 'latest-rank0.pt' are
    understood.

    Raises:
        UserError: if load_path does not exist, is damaged or is no checkpoint.
    """
    if not config.is_train and not config.load_path:
        say("no load_path was given: this evaluates untrained weights")
    newest = on_rank_zero(_newest_whole, saver.folder) if config.autoresume and saver.folder else None
    if newest and saver.folder:
        folder, name = saver.folder, newest[0]
    elif config.load_path:
        folder, name = split(on_rank_zero(_existing, config.load_path))
    else:
        return None
    # Rank 0's disk has it already; the leaders of other nodes fetch it for theirs.
    fetched = newest[1:] if newest and dist.get_global_rank() == 0 else None
    saved = read_checkpoint(folder, name, config.load_unsafe_pickle, fetched)
    if config.is_train and not config.load_weights_only:
        saver.source = folder
        if str(folder) != str(saver.folder):
            _forget_best(saved)
    return saved


def _forget_best(saved: Saved) -> None:
    """Take what another run has reached out of a checkpoint: a new one has a best, and patience, of its own."""
    for name in saved.state.get("callbacks", {}).keys() & _KEEP_BEST:
        saved.state["callbacks"][name] = {}


def _newest_whole(folder: Folder) -> tuple[str, Path, Path] | None:
    """The name of the newest checkpoint that is whole, with what fetch_whole returned for it."""
    for name in newest_first(folder):
        try:
            fetched = fetch_whole(folder, name)
        except CheckpointError:
            say(f"{folder}/{name} is damaged (cut short or changed): passed over, the one before it is tried")
        else:
            say(f"resuming from {folder}/{name}")
            return name, *fetched
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
                f"Type: {shlex.quote(f'load_path={inside}/{best}')}"
            )
    there = [n for n in names if n.endswith(".pt")]
    raise UserError(f"load_path: there is no {folder}/{name}; that folder holds {named(there) or 'no checkpoint'}")
