"""Save checkpoints atomically, and find the newest intact one to start from."""

import shlex
from contextlib import ExitStack
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
from training import checkpoint_files as files
from training import rank_states
from training.clock import is_over
from training.devices import on_local_leaders, on_rank_zero, say
from training.guards import average_batchnorm
from training.interrupt import Interrupted, StopRequest
from training.saved import CheckpointError, Saved, fetch_whole, read_checkpoint

_KEEP_BEST = {"Checkpoints", "EarlyStopper"}  # callbacks whose state is the best result of a run


class Checkpoints(Callback):
    """Save the state at an interval, at the end, after the best evaluation, and when the run is told to stop.

    Args:
        folder: where checkpoints go; None saves none, and only `stop` is handled.
        interval: a Composer time string.
        keep: how many of the newest to keep, -1 for all; the best one is always kept.
        stop: handled after a batch or an epoch, once the checkpoint is written.
    """

    def __init__(self, folder: Folder | None, interval: str, keep: int, stop: StopRequest) -> None:
        self.folder, self.keep, self.stop = folder, keep, stop
        self.source: Folder | None = None  # folder of the checkpoint that the run started from
        self._is_due = create_interval_scheduler(interval, include_end_of_training=True)
        self._due = False
        self._has_room = folder is None  # checked after the first batch, when the optimizer has its state
        self._own: list[str] = []  # checkpoints to keep, oldest first; all others in the folder are deleted
        self._best = float("-inf")
        self._improved = False  # the best weights are not saved yet
        self.is_over = False  # saved in the checkpoint: the run ended there, at its full length or by a callback

    def fit_start(self, state: State, logger: Logger) -> None:
        """Find the checkpoints up to the batch that the run resumes from, and finish what a kill interrupted."""
        if self.folder is None:
            return
        # Rank 0 lists them for all: a node without the folder would start a save that the other ranks skip.
        names = on_rank_zero(files.newest_first, self.folder)[::-1]
        self._keep([name for name in names if files.batch_of(name) <= state.timestamp.batch.value])
        if not state.timestamp.batch.value:
            on_rank_zero(files.clear, self.folder)
            self._own = []
        elif self._is_saved(state) and str(self.source) == str(self.folder):
            on_rank_zero(files.tidy, self.folder, self._own, self._improved)
        self._improved = False  # the best of another folder is not copied into this one

    def eval_end(self, state: State, logger: Logger) -> None:
        """Note whether this evaluation is the best so far."""
        metric = state.eval_metrics.get("eval", {}).get("MulticlassAccuracy")
        if metric is not None and state.timestamp.batch.value and float(metric.compute()) > self._best:
            self._best, self._improved = float(metric.compute()), True

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save if due; stop if requested."""
        self._save_if_due(state, Event.BATCH_CHECKPOINT)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Save if due; stop if requested."""
        self._save_if_due(state, Event.EPOCH_CHECKPOINT)

    def restore_ranks(self, state: State) -> None:
        """Restore each rank's own state, saved next to the checkpoint that the Trainer has loaded."""
        if self.source is not None:
            rank_states.restore(state, self.source)

    def save_best(self, state: State) -> None:
        """Save the weights if they are the best; the last evaluation comes after the last checkpoint."""
        if self._improved and self.folder is not None:
            if self._is_saved(state):
                on_rank_zero(self.folder.copy, self._own[-1], files.BEST)
            else:
                save(state, self.folder, files.BEST)
        self._improved = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best top-1, whether this state reached it, and whether the run ended here."""
        return {"best": self._best, "improved": self._improved, "is_over": self.is_over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict(); empty when the run starts from another run's checkpoint."""
        self._best = state.get("best", self._best)
        self._improved, self.is_over = state.get("improved", False), state.get("is_over", False)

    def _save_if_due(self, state: State, event: Event) -> None:
        if self.folder is not None and not self._has_room:
            on_rank_zero(files.check_room, self.folder, state.state_dict(), self.keep, self._own)
            self._has_room = True
        signum = self._stop_signal(state, event)
        self._due |= self._is_due(state, event)
        if event == Event.BATCH_CHECKPOINT and not signum and _epoch_is_over(state):
            return
        due, self._due = self._due or bool(signum), False
        if due and not self._is_saved(state):
            self._save(state)
        else:
            self.save_best(state)
        if signum:
            raise Interrupted(signum)

    def _stop_signal(self, state: State, event: Event) -> int:
        """Return the signal that any rank received; a few batches late if ranks do not wait for each other."""
        if at_own_pace(state) and event == Event.BATCH_CHECKPOINT and not _epoch_is_over(state):
            return self.stop.lately_on_any_rank(state)
        return self.stop.on_any_rank(state)

    def _is_saved(self, state: State) -> bool:
        return bool(self._own) and files.batch_of(self._own[-1]) == state.timestamp.batch.value

    def _save(self, state: State) -> None:
        if self.folder is None:
            return
        name = files.name_of(state)
        self.is_over = is_over(state)
        rank_states.save(state, self.folder)
        save(state, self.folder, name)
        self._keep([*self._own, name])
        on_rank_zero(files.tidy, self.folder, self._own, self._improved)
        self._improved = False

    def _keep(self, names: list[str]) -> None:
        self._own = names[-self.keep :] if self.keep > 0 else names


def _epoch_is_over(state: State) -> bool:
    """Whether this batch ends the epoch; the checkpoint is then written after the epoch's evaluation."""
    assert state.max_duration is not None
    return state.max_duration.unit == TimeUnit.EPOCH and state.timestamp.batch_in_epoch == state.dataloader_len


def save(state: State, folder: Folder, name: str) -> None:
    """Save the state and all ranks' random states; every rank calls this, rank 0 writes, if all weights are finite."""
    with ExitStack() as stack:
        for algorithm in ours(state.algorithms):  # those that average weights evaluate and save the averages
            stack.enter_context(algorithm.evaluation_weights(state))
        average_batchnorm(state)
        _check_finite(state)
        content = {"state": state.state_dict(), "rng": reproducibility.get_rng_state()}
        on_rank_zero(files.write, content, folder, name)


def _check_finite(state: State) -> None:
    norms = torch.stack(torch._foreach_norm([p.detach() for p in state.model.parameters()]))
    if not bool(torch.isfinite(norms).all()):
        raise TrainingError(
            f"a weight is not finite after batch {state.timestamp.batch.value}; no checkpoint was saved. "
            "Lower optimizer.lr, or lengthen scheduler.t_warmup"
        )


def for_run(run: Run, folder_name: str, stop: StopRequest) -> Checkpoints:
    """Build the callback that saves this run, and check before training that its folder is writable and free."""
    config = run.config
    folder = None
    if config.is_train and (path := config.checkpoint_folder(folder_name)):
        folder = open_folder(path)
        on_rank_zero(_check_folder, folder, config.autoresume or config.save_overwrite)
        on_local_leaders(files.remove_dead, folder)
    return Checkpoints(folder, config.save_interval, config.save_num_checkpoints_to_keep, stop)


def _check_folder(folder: Folder, may_have_checkpoints: bool) -> None:
    files.check_writable(folder)
    if not may_have_checkpoints and (names := files.newest_first(folder)):
        raise ConfigError(
            f"save_folder: {folder} already has checkpoints ({', '.join(names[:3])}). Use autoresume=true to resume "
            "from them, save_overwrite=true to overwrite them, or another save_folder=FOLDER"
        )


def to_start_from(config: Config, saver: Checkpoints) -> Saved | None:
    """Return the checkpoint to start from, or None: the run's newest intact one under autoresume, else load_path."""
    if not config.is_train and not config.load_path and not config.model.weights:
        say("load_path: none was given; evaluating untrained weights")
    newest = on_rank_zero(_newest_whole, saver.folder) if config.autoresume and saver.folder else None
    if newest and saver.folder:
        folder, name = saver.folder, newest[0]
    elif config.load_path:
        folder, name = split(on_rank_zero(_existing, config.load_path))
    else:
        return None
    # Rank 0 has fetched it already; each other node's leader fetches its own copy.
    fetched = newest[1:] if newest and dist.get_global_rank() == 0 else None
    saved = read_checkpoint(folder, name, config.load_unsafe_pickle, fetched)
    if config.is_train and not config.load_weights_only:
        saver.source = folder
        if str(folder) != str(saver.folder):  # another run's: this one tracks its own best and patience
            for kind in saved.state.get("callbacks", {}).keys() & _KEEP_BEST:
                saved.state["callbacks"][kind] = {}
    return saved


def _newest_whole(folder: Folder) -> tuple[str, Path, Path] | None:
    """Return the name of the newest intact checkpoint, followed by fetch_whole's result for it."""
    for name in files.newest_first(folder):
        try:
            fetched = fetch_whole(folder, name)
        except CheckpointError:
            say(f"{folder}/{name} is damaged (cut short or changed); trying the one before it")
        else:
            say(f"resuming from {folder}/{name}")
            return name, *fetched
    return None


def _existing(load_path: str) -> str:
    path = load_path.replace("{rank}", "0").rstrip("/")
    folder, name = split(path)
    name, names = files.find_latest(folder, name), folder.names()
    if name in names and not Path(path).is_dir():
        return f"{folder}/{name}"
    for inside in (path, f"{path}/checkpoints"):
        if checkpoints := [n for n in open_folder(inside).names() if n.endswith(".pt")]:
            best = next((n for n in (files.LATEST, files.BEST) if n in checkpoints), checkpoints[-1])
            raise UserError(
                f"load_path: {path} is a folder; name one of its checkpoints: {named(checkpoints)}. "
                f"Type: {shlex.quote(f'load_path={inside}/{best}')}"
            )
    checkpoints = [n for n in names if n.endswith(".pt")]
    raise UserError(f"load_path: there is no {folder}/{name}; the folder has {named(checkpoints) or 'no checkpoint'}")
