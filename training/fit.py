"""Build the Trainer of a run, and train or evaluate with it."""

import atexit
import re
import traceback
import warnings
import weakref
from typing import Any

import torch
from composer import Trainer
from composer.algorithms.warnings import NoEffectWarning
from composer.callbacks import LRMonitor, MemoryMonitor, SpeedMonitor
from composer.core import Callback
from composer.models import ComposerModel
from composer.utils import dist

from common.errors import sentence_of
from config import Run, TrainingError
from recipes.algorithms import reverse_eval_end
from recipes.algorithms._base import ours
from recipes.refusals import is_installed
from training import build, out_of_memory
from training.checkpoints import Checkpoints
from training.clock import is_over
from training.devices import say
from training.guards import ExactRandomState
from training.interrupt import Interrupted
from training.loading import LOST_RANK, loads
from training.param_groups import Grouping, set_hyperparameters
from training.progress import ProgressLine, print_summary
from training.record import RunFolder
from training.recorder import Recorder, TrainAccuracy
from training.saved import Saved

SPEED_WINDOW = 50  # batches, as in the published example
_COMPONENT = re.compile(r"/composer/(algorithms|callbacks|loggers)/(?!logger\b)(\w+?)(?:_logger)?(?:\.py$|/)")


def make_trainer(
    run: Run,
    *,
    model: ComposerModel,
    data: build.Data,
    callbacks: list[Callback],
    saved: Saved | None,
    folder: RunFolder | None = None,
    **arguments: Any,
) -> Trainer:
    """Build the Trainer, disabling the Composer defaults that we replace.

    `folder` names the run, here and at its trackers; `arguments` are passed on to Composer.
    """
    config, machine = run.config, run.machine
    loggers = build.loggers(config, folder.tracked if folder else None)
    arguments |= {"run_name": folder.name} if folder else {}
    random_state, groups = ExactRandomState(), Grouping(config, model, arguments["optimizers"])
    out_of_memory.install()
    try:
        with (
            warnings.catch_warnings(),
            loads(saved, config, getattr(build.image_dataset(data.evaluation), "classes", None), groups.split),
        ):
            warnings.simplefilter("error", NoEffectWarning)
            trainer = Trainer(
                model=model,
                train_dataloader=data.train,
                eval_dataloader=build.evaluator(run, data.evaluation),
                eval_interval=config.eval_interval,
                algorithm_passes=reverse_eval_end,
                callbacks=[random_state, *_monitors(machine.device, loggers), *callbacks],
                loggers=loggers,
                progress_bar=False,
                load_path=None if saved is None else "saved",  # a placeholder: see training.loading
                # Our samplers start at the checkpoint's position; Composer would decode and discard all images before.
                spin_dataloaders=False,
                device=machine.device,
                precision=machine.precision,
                device_train_microbatch_size=machine.microbatch,
                compile_config={} if machine.compile else None,
                deterministic_mode=config.deterministic,
                seed=config.seed,
                dist_timeout=config.dist_timeout,
                python_log_level=config.python_log_level,
                **arguments,
            )
    except NoEffectWarning as error:
        raise TrainingError(f"an algorithm of the recipe changed nothing: {_one_line(error)}") from error
    if machine.compile:
        _allow_graphs(trainer)
    _closed_at_exit(trainer)
    random_state.states, trainer._rng_state = trainer._rng_state, None
    groups.split(trainer.state.model)
    set_hyperparameters(trainer.state.optimizers[0], config)
    return trainer


def fit(trainer: Trainer, progress: ProgressLine, saver: Checkpoints) -> None:
    """Train or evaluate, and write the run folder's summary even if that fails."""
    ended, state, recorder = "failed", trainer.state, progress.recorder
    config = recorder.folder.run.config
    is_train = config.is_train
    if is_train and recorder.folder.is_finished(state.timestamp.batch.value):
        say(f"{recorder.folder.path}: this run has already finished; nothing to do")
        return
    if is_train and is_over(state) and not config.autoresume:
        raise TrainingError(
            f"load_path: its run was trained for {state.timestamp.epoch}, so nothing is left of {state.max_duration}; "
            f"set a longer max_duration={state.max_duration * 2!s}, or load_weights_only=true to start a new training"
        )
    try:
        if is_train:
            with saver.stop, warnings.catch_warnings():
                # Expected when a run in batches resumes at an epoch's end; WholeEpochs detects short epochs.
                warnings.filterwarnings("ignore", "No batches were trained")
                if is_over(state) or (config.autoresume and saver.is_over):
                    _complete(trainer, recorder, saver)
                else:
                    trainer.fit()
            saver.save_best(state)
            ended = "finished"
        else:
            trainer.eval()
            ended = "evaluated"
    except Interrupted as error:
        ended = str(error)
        raise
    except BaseException as error:
        ended = f"failed: {_one_line(error) or type(error).__name__}"
        raise
    finally:
        progress.close(state, trainer.logger)
        summary = recorder.summary(state, ended)
        if is_train:
            recorder.folder.write_summary(summary)
        if dist.get_global_rank() == 0 and not ended.startswith("failed"):
            print_summary(progress.console, summary, config.model, str(recorder.folder.path) if is_train else None)


def _complete(trainer: Trainer, recorder: Recorder, saver: Checkpoints) -> None:
    """Complete a run that was killed after its last checkpoint."""
    say(f"{recorder.folder.path}: fully trained already; completing the steps after the last checkpoint")
    saver.fit_start(trainer.state, trainer.logger)
    if recorder.is_evaluation_due:
        trainer.eval()


def explain(error: Exception) -> str | None:
    """Return the user's message for an error that others may have wrapped; None if it is a bug of ours."""
    if sentence := sentence_of(error):
        return sentence
    if dist.get_world_size() > 1 and LOST_RANK.search(str(error)):
        return "another rank died or stopped responding; its output is above or in the run folder's logs/"
    if isinstance(error, torch.OutOfMemoryError):
        return None
    # Composer's algorithms, callbacks or loggers raised it if no code of ours or the user's follows in the traceback.
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if match := _COMPONENT.search(frame.filename):
            key = f"{match[1]}.{match[2]}"
            return f"{key}: {_one_line(error).rstrip('.')}; give it other arguments, or remove it: {key}=null"
        if not is_installed(frame.filename):
            return None
    return None


def _allow_graphs(trainer: Trainer) -> None:
    """Let torch.compile make a graph per image size; beyond its limit of 8, it silently runs the network uncompiled.

    A size needs two if the last microbatch is smaller; evaluation and auto's smaller microbatches need a few more.
    """
    sizes = max((algorithm.max_sizes for algorithm in ours(trainer.state.algorithms)), default=1)
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, 2 * sizes + 8)


def _closed_at_exit(trainer: Trainer) -> None:
    """Close the Trainer at exit through a weak reference; Composer's strong one would keep its model until then."""
    atexit.unregister(trainer.engine._close)
    engine = weakref.ref(trainer.engine)

    def close() -> None:
        if alive := engine():
            alive.close()

    atexit.register(close)


def _monitors(device: str, loggers: list[Any]) -> list[Callback]:
    """Return the callbacks that log what the published example logs; none without a logger."""
    if not loggers:
        return []
    memory: list[Callback] = [MemoryMonitor()] if device == "gpu" else []
    return [SpeedMonitor(window_size=SPEED_WINDOW), LRMonitor(), TrainAccuracy(), *memory]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
