"""Find a learning rate: train a little while it rises.

A table and a plot show where the loss falls and where it explodes.

    python -m tools.lr_find yamls/digits.yaml                          # half a minute on a CPU
    python -m tools.lr_find yamls/digits.yaml --seeds 3 --write my_run.yaml
    composer -n 8 -m tools.lr_find yamls/resnet50.yaml recipe_name=onecycle train_dataset.path=...

The model, data, loss, precision, batches and algorithms are the run's own, except those that average weights or have
a schedule of their own. Nothing is evaluated, and no checkpoint is saved. Measurements go to lr_find.csv, suggestions
to lr_find.json, a plot to lr_find.png; the last line is the argument that sets the recommended rate.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import command
from common.folders import check_folder
from common.terminal import local_path
from config import ConfigError, Run, TrainingError, check_world, durations_of, load
from main import explained
from recipes.declared import declarations

if TYPE_CHECKING:
    from tools.lr_find.rules import Suggestion
    from tools.lr_find.sweep import Sweep

LEAST_POINTS = 10


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; ConfigError for an impossible range or number."""
    parser = command.parser("tools.lr_find", __doc__)
    add = parser.add_argument
    add("words", nargs="+", metavar="ARG", help="a run's YAML and key=value arguments")
    add("--from", dest="lowest", type=float, default=1e-5, help="lowest rate (default: %(default)g)")
    add("--to", dest="highest", type=float, default=10, help="highest rate (default: %(default)g)")
    add("--points", type=int, default=100, help="batches, each at its rate (default: %(default)s)")
    add("--seeds", type=int, default=1, help="sweeps, each with its own weights and order (default: 1)")
    add("--out", type=local_path, default=Path("lr_find"), help="folder (default: %(default)s)")
    add("--write", type=local_path, metavar="FILE", help="put the rate into this YAML; a new one copies the run's")
    given = parser.parse_intermixed_args(argv)
    problems = []
    if not 0 < given.lowest < given.highest < math.inf:
        least = "" if given.lowest > 0 else ", above 0"
        problems.append(
            f"--from {given.lowest:g} --to {given.highest:g}: the range must rise{least}, as in --from 1e-5 --to 10"
        )
    if given.points < LEAST_POINTS:
        problems.append(f"--points {given.points}: shows no curve; give at least {LEAST_POINTS}")
    if given.seeds < 1:
        problems.append(f"--seeds {given.seeds}: give at least 1")
    if problems:
        raise ConfigError(*problems)
    return given


def load_run(words: list[str]) -> tuple[Run, dict[str, str]]:
    """Return the run to sweep, and the algorithms left out of it, with the reasons."""
    run = load(words)
    config = run.config
    if not config.is_train:
        raise ConfigError("is_train: false only evaluates, and a learning rate is for training; set is_train=true")
    reasons = {name: declarations("algorithm", name).NO_LR_FIND for name in config.algorithms}
    left_out = {name: reason for name, reason in reasons.items() if reason}
    config.algorithms = {name: args for name, args in config.algorithms.items() if name not in left_out}
    config.save_folder, config.autoresume, config.loggers = None, False, {}
    config.load_weights_only = config.load_path is not None  # fine-tuning starts from them, with its own rate
    return run, left_out


def main(argv: Sequence[str]) -> int:
    """Sweep, print and write; return 0."""
    given = parse(argv)
    run, left_out = load_run(given.words)
    check_world(run.config, int(os.environ.get("WORLD_SIZE", "1")))

    # Imported late: torch takes seconds, and mistakes are reported before.
    import numpy as np

    from tools.lr_find import files, rules, store
    from tools.lr_find.sweep import run_sweep
    from training.devices import on_rank_zero, prepare, say

    prepare(run)
    if given.write:
        on_rank_zero(store.check, given.write, given.words)
    on_rank_zero(check_folder, given.out, f"--out {given.out}:", "name another folder")
    for name, reason in left_out.items():
        say(f"left out: {name} ({reason})")
    rates = np.geomspace(given.lowest, given.highest, given.points).tolist()
    sweeps: list[Sweep] = []
    for seed in range(run.config.seed, run.config.seed + given.seeds):
        sweeps.append(run_sweep(run, seed, rates, lambda sweep: None if sweeps else say(describe(run, sweep, given))))
        say(f"seed {seed}: {len(sweeps[-1].rates)} of {given.points} points, {sweeps[-1].ended}")
    useful = [sweep for sweep in sweeps if sweep.fell]
    if not useful:
        raise TrainingError(
            f"the loss never fell between the rates {given.lowest:g} and {given.highest:g}. If it grew from the start, "
            f"use --from {given.lowest / 100:g}; if it did not move, --to {given.highest * 100:g} or --points "
            f"{given.points * 3}"
        )
    found = rules.suggestions([sweep.curve for sweep in useful])
    warms_up = run.config.scheduler.name == "one_cycle" or durations_of(run.config)[1].value > 0
    best, why = rules.recommended(found, warms_up)
    lr = rules.rounded(best.lr)
    about = summary(given, run, sweeps, found, best, why, left_out)
    on_rank_zero(files.write_all, given.out, sweeps, found, best, about)
    say(f"\n{table(found, best)}\n")
    say(f"recommended: {lr:g}, by {best.rule}, {why}")
    if any(rules.still_falls(sweep.curve[1], given.points) for sweep in useful):
        higher = f"use --to {given.highest * 100:g}"
        say(f"The loss still falls at --to {given.highest:g}: the best rate may be higher; {higher}")
    say(f"written: {', '.join(str(given.out / f'lr_find.{kind}') for kind in ('csv', 'json', 'png'))}")
    if given.write:
        train = on_rank_zero(store.store, given.write, given.words, lr)
        say(f"written: optimizer.lr into {given.write}; now type: {train}")
    say(f"\noptimizer.lr={lr:g}")
    return 0


def describe(run: Run, sweep: Sweep, given: argparse.Namespace) -> str:
    """Return a line about the sweep, and a warning if it repeats images."""
    batches = sweep.batches_per_epoch
    line = f"{title(run)}: {given.points} points from {given.lowest:g} to {given.highest:g}"
    if given.points <= batches:
        return line
    once = f" (--points {batches} would not)" if batches >= LEAST_POINTS else ""
    return (
        f"{line}\n{given.points} points, but an epoch has {batches} batches: they repeat the {sweep.samples:,} "
        f"images {given.points / batches:.1f} times, and the loss falls by repetition too{once}"
    )


def title(run: Run) -> str:
    """Return the run in a few words, with the batch size that the rate holds for."""
    config = run.config
    words = [Path(run.yaml_path or "").name, config.recipe_name and Path(config.recipe_name).stem, config.model.name]
    words += [config.optimizer["name"], f"batch {config.train_dataset.batch_size}", run.machine.precision]
    return ", ".join(filter(None, words))


def table(found: list[Suggestion], best: Suggestion) -> str:
    """Return the suggestions, one per line, with their spread over the seeds."""
    rows = []
    for suggestion in found:
        spread = f"   {suggestion.lowest:.3g} to {suggestion.highest:.3g} over the seeds"
        row = f"  {suggestion.rule:<12}{suggestion.lr:>9.3g}{spread if suggestion.lowest < suggestion.highest else ''}"
        rows.append(f"{row}{'   <- recommended' if suggestion is best else ''}")
    return "\n".join(rows)


def summary(
    given: argparse.Namespace,
    run: Run,
    sweeps: list[Sweep],
    found: list[Suggestion],
    best: Suggestion,
    why: str,
    left_out: dict[str, str],
) -> dict[str, Any]:
    """Return the content of lr_find.json."""
    from composer.utils import dist

    from tools.lr_find import rules
    from training.secrets import redacted

    config, figures = run.config, ("lr", "lowest", "highest")
    words = [*given.words, "--from", f"{given.lowest:g}", "--to", f"{given.highest:g}"]
    words += ["--points", str(given.points), "--seeds", str(given.seeds)]
    return {
        "title": title(run),
        "command": shlex.join(["python", "-m", "tools.lr_find", *redacted(words)]),
        "batch_size": config.train_dataset.batch_size,
        "world_size": dist.get_world_size(),
        "device": run.machine.device,
        "precision": run.machine.precision,
        "smoothing": rules.smoothing_for(given.points),
        "left_out": left_out,
        "epochs": round(given.points / sweeps[0].batches_per_epoch, 3),
        "sweeps": [{"seed": sweep.seed, "points": len(sweep.rates), "ended": sweep.ended} for sweep in sweeps],
        "suggestions": {s.rule: {key: rules.rounded(getattr(s, key)) for key in figures} for s in found},
        "recommended": {"rule": best.rule, "lr": rules.rounded(best.lr), "why": why},
        "override": f"optimizer.lr={rules.rounded(best.lr):g}",
    }


run = partial(command.run, main, explain=explained)

if __name__ == "__main__":
    sys.exit(run())
