"""A sweep written down for others to run: its commands, a shell script, or a SLURM array."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from config import ConfigError
from config.read import main_script
from launch.slurm.job import script, shape
from tools.sweep.plan import Plan
from tools.sweep.running import composer


def commands(plan: Plan, made_by: str) -> str:  # noqa: ARG001
    """A command per line, for GNU parallel or for reading."""
    return "".join(f"{shlex.join(composer(plan, run))}\n" for run in plan.runs)


def shell(plan: Plan, made_by: str) -> str:
    """A script that runs them one after another; a run that fails does not stop it."""
    lines = ["#!/usr/bin/env bash", f"# Made by: {made_by}", "failed=0", "trap 'exit 130' INT"]
    lines += [f"{shlex.join(composer(plan, run))} || failed=$?" for run in plan.runs]
    return "\n".join([*lines, 'exit "$failed"', ""])


def slurm(plan: Plan, made_by: str) -> str:
    """A batch script of an array with a task for each run.

    Raises:
        ConfigError: if the sweep's `slurm:` is no shape of a job.
    """
    runs = [[main_script(), *run.words] for run in plan.runs]
    job, binaries = shape(plan.slurm), str(Path(sys.executable).parent)
    if not job.problems() and job.world_size != plan.processes:
        raise ConfigError(
            f"processes: {plan.processes} given, but a job of this shape has {job.world_size}; say processes: "
            f"{job.world_size}, or another preset under slurm"
        )
    return script(job, plan.folder.name, runs, str(Path.cwd()), binaries, made_by)


KINDS: dict[str, Callable[[Plan, str], str]] = {"commands": commands, "shell": shell, "slurm": slurm}
