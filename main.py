"""Train a ResNet: `composer main.py yamls/resnet50.yaml recipe_name=mild`. One YAML, one command, one run folder.

Reads top to bottom: configuration, devices, data, model, optimizer, schedule, algorithms, Trainer, fit, record.
"""

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
    """Train or evaluate as the configuration says.

    Args:
        config: what config.load() made of a command line, or an OmegaConf merged by the caller: then the rest is
            filled in, and what the published Mosaic example let pass, passes.

    Returns:
        The Trainer, its model holding the weights that the recipe ends with (the averaged ones under EMA).

    Raises:
        UserError: a ConfigError, DataError or TrainingError, each a sentence for the person at the keyboard.
        Interrupted: after a SIGTERM or Ctrl-C; its checkpoint is written.
    """
    started = time.monotonic()
    run = config if isinstance(config, Run) else complete(config)

    ranks, ranks_per_node = world()
    check_world(run.config, ranks, ranks_per_node)

    # torch and Composer take four seconds to import: a mistyped key is answered before.
    from training import build, checkpoints, claims, devices, effects, guards
    from training.data_wait import DataWait
    from training.fit import fit, make_trainer
    from training.interrupt import StopRequest
    from training.progress import ProgressLine
    from training.recorder import Recorder

    devices.prepare(run)
    folder = claims.claim(run)
    with folder.held():
        algorithms, callbacks = build.algorithms(run.config), build.callbacks(run.config)
        data = build.data(run, algorithms)
        model = build.model(run.config)
        optimizer = build.optimizer(run.config, model)
        schedule = build.schedule(run, data)
        stop = StopRequest()
        folder.keep_output()
        saver = checkpoints.for_run(run, folder.name, stop)
        data_wait = DataWait(build.loader_of(data.train) if data.train else None)
        recorder = Recorder(folder, started, data_wait)
        first = [*build.goes_on(run.config, schedule, data), *guards.for_run(schedule, data)]
        watching = effects.for_run(run, algorithms, schedule)
        progress = ProgressLine(recorder, bar="progress_bar" in run.config.loggers)
        trainer = make_trainer(
            run,
            folder=folder,
            model=model,
            data=data,
            optimizers=optimizer,
            max_duration=schedule.max_duration,
            algorithms=algorithms,
            # In this order after each event's algorithms, so that nothing bad is recorded or saved.
            callbacks=[*first, data_wait, recorder, progress, *watching, *callbacks, saver],
            saved=checkpoints.to_start_from(run.config, saver),
        )
        saver.restore_ranks(trainer.state)
        fit(trainer, progress, saver)
    return trainer


def cli(argv: list[str]) -> int:
    """Run a command line; its exit status. A mistake of the user's is a sentence on stderr, never a traceback."""
    take_any_text()
    try:
        run = load(argv)
        if run.config.dry_run:
            from config.dry_run import show

            show(run)
            return 0
        main(run).close()  # trackers get their last lines now, not whenever the garbage collector comes by
    except Exception as error:
        return answer(error, explained)
    return 0


def explained(error: Exception) -> str | None:
    """The sentence for an error that is not the user's mistake in itself; None for a bug."""
    from training.fit import explain

    return explain(error)


def cli_of_a_process(argv: list[str]) -> int:
    """As `cli`, for a process that is to end with this status, whatever happens to other ranks in the meantime."""
    status = cli(argv)
    if status:
        # The launcher stops this rank when another has failed, and prints the words of ranks whose status differs.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(cli_of_a_process(sys.argv[1:]))
