"""Train a ResNet: `composer main.py yamls/resnet50.yaml recipe_name=mild`."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from common.command import answer
from common.output import take_any_text
from config import Run, check_world, complete, load
from config.world import world

if TYPE_CHECKING:
    from composer import Trainer
    from omegaconf import DictConfig


def main(config: DictConfig | Run) -> Trainer:
    """Train or evaluate.

    Args:
        config: a Run from config.load(), or an OmegaConf merged by the caller, which is completed with defaults and
            checked as leniently as in the published Mosaic example.

    Returns:
        The Trainer; its model holds the final weights of the recipe (the averaged ones under EMA).

    Raises:
        UserError: for a mistake that the user can correct.
        Interrupted: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    started = time.monotonic()
    run = config if isinstance(config, Run) else complete(config)

    check_world(run.config, *world())

    # Importing torch and Composer takes four seconds; mistyped keys are reported before that.
    from training.startup import import_composer

    import_composer()
    from training import build, checkpoints, devices, effects, guards, record, weights
    from training.data_wait import DataWait
    from training.fit import fit, make_trainer
    from training.interrupt import StopRequest
    from training.progress import ProgressLine
    from training.recorder import Recorder

    devices.prepare(run)
    folder = record.claim(run)
    with devices.leaving(), folder.held():
        algorithms, callbacks = build.algorithms(run.config), build.callbacks(run.config)
        folder.keep_output()
        saver = checkpoints.for_run(run, folder.name, StopRequest())
        saved, pretrained = weights.to_start_from(run.config, saver)
        data = build.data(run, algorithms)
        model, loaded = weights.build_model(run, pretrained, data.classes, algorithms)
        schedule = build.schedule(run, data)
        data_wait = DataWait(build.loader_of(data.train) if data.train else None, run.config.train_dataset.storage)
        recorder = Recorder(folder, started, data_wait, loaded)
        first = [*build.goes_on(run.config, schedule, data), *guards.for_run(schedule, data)]
        watching = effects.for_run(run, algorithms, schedule)
        progress = ProgressLine(recorder, bar="progress_bar" in run.config.loggers)
        trainer = make_trainer(
            run,
            folder=folder,
            model=model,
            data=data,
            optimizers=build.optimizer(run.config, model),
            max_duration=schedule.max_duration,
            algorithms=algorithms,
            # Guards run first, so that an invalid state is neither recorded nor saved.
            callbacks=[*first, data_wait, recorder, progress, *watching, *callbacks, saver],
            saved=saved,
        )
        saver.restore_ranks(trainer.state)
        fit(trainer, progress, saver)
    return trainer


def cli(argv: list[str]) -> int:
    """Run a command line and return the exit status; a user's mistake is a sentence on stderr, not a traceback."""
    take_any_text()
    try:
        run = load(argv)
        if run.config.dry_run:
            from config.dry_run import show

            show(run)
            return 0
        main(run).close()  # flushes the trackers now instead of at garbage collection
    except Exception as error:
        return answer(error, explained)
    return 0


def explained(error: Exception) -> str | None:
    """Return the sentence for an error that is not a UserError itself; None for a bug."""
    from training.fit import explain

    return explain(error)


def cli_of_a_process(argv: list[str]) -> int:
    """Run `cli` in a separate process, which keeps its exit status when other ranks fail."""
    status = cli(argv)
    if status:
        # If another rank fails first, the launcher terminates this one; a SIGTERM must not replace its exit status.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(cli_of_a_process(sys.argv[1:]))
