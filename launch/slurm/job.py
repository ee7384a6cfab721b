"""A SLURM job: its resources, and the script for sbatch."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.suggest import did_you_mean, listing
from config import ConfigError
from config.read import read_yaml

PRESETS = Path(__file__).with_name("presets.yaml")
SAVE_SECONDS = 300  # before the time limit, when SLURM signals the run to save and stop
_GPUS = re.compile(r"^(?:[\w.-]+:)?([1-9]\d*)$")
_TIME = re.compile(r"^(?:(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?|(\d+)(?::(\d+))?(?::(\d+))?)$")


@dataclass
class Job:
    """The resources of a job; attributes are named after the options of sbatch and `python -m launch.slurm`."""

    nodes: int = 1
    gpus_per_node: str = ""  # a number, or KIND:NUMBER
    time: str | None = None  # in sbatch's format; None: the partition's limit
    account: str | None = None
    partition: str | None = None
    constraint: str | None = None
    sbatch: list[str] = field(default_factory=list)  # further options of sbatch, as typed
    env: dict[str, str] = field(default_factory=dict)  # environment variables of every process

    @property
    def processes(self) -> int:
        """Processes per node: one per GPU."""
        match = _GPUS.match(self.gpus_per_node)
        return int(match[1]) if match else 0

    @property
    def world_size(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.processes

    def problems(self) -> list[str]:
        """Return the problems with the values, as complete sentences."""
        problems = []
        if self.nodes < 1:
            problems.append(f"--nodes {self.nodes}: give at least 1")
        if not self.gpus_per_node:
            problems.append("--gpus-per-node: missing; give --gpus-per-node A100:4, or a preset, as in --preset 4xA100")
        elif not self.processes:
            problems.append(f"--gpus-per-node {self.gpus_per_node}: give a number, as in 4, or a kind too, as in A40:4")
        if self.time is not None and (seconds := seconds_of(self.time)) < 2 * SAVE_SECONDS:
            what = "is not a time; write 8:00:00 or 1-12:00:00" if seconds < 0 else "is too short to save in time"
            problems.append(f"--time {self.time}: {what}; give at least {2 * SAVE_SECONDS // 60} minutes")
        for option in self.sbatch:
            if not option.startswith("-"):
                problems.append(f"--sbatch {option}: is not an option of sbatch; give it as in --sbatch=--mem=0")
        for key in self.env:
            if not re.fullmatch(r"[A-Za-z_]\w*", key):
                problems.append(f"--env {key}: is not the name of a variable; write --env NAME=VALUE")
        return problems


def presets() -> dict[str, Any]:
    """Return the presets: name -> values of a Job."""
    return read_yaml(PRESETS, str(PRESETS), [])


def shape(options: dict[str, Any]) -> Job:
    """Build a job from a preset and options that override it; `sbatch` and `env` are added to the preset's.

    Args:
        options: `preset` and the attributes of a Job; None stands for an option not given.
    """
    known, keys = presets(), [item.name for item in fields(Job)]
    options = {key: value for key, value in options.items() if value is not None}
    preset = options.pop("preset", None)
    if preset is not None and preset not in known:
        raise ConfigError(f"preset: unknown value {preset}{did_you_mean(preset, known)} (choose {listing(known)})")
    if wrong := [key for key in options if key not in keys]:
        raise ConfigError(*(f"{key}: no such key of a job{did_you_mean(key, keys)}" for key in wrong))
    base = known.get(preset, {})
    sbatch = [*base.get("sbatch", []), *options.get("sbatch", [])]
    env = {**base.get("env", {}), **options.get("env", {})}
    return Job(**{**base, **options, "sbatch": sbatch, "env": env})


def seconds_of(limit: str) -> int:
    """Return sbatch's MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS in seconds; -1 for anything else."""
    match = _TIME.match(limit)
    if match is None:
        return -1
    days, *rest = (int(part or 0) for part in match.groups()[:4])
    if match[1] is None:
        first, second, third = (part and int(part) for part in match.groups()[4:])
        parts = (first, second, third) if third is not None else (0, first, second or 0)
        days, rest = 0, [int(part or 0) for part in parts]
    hours, minutes, seconds = rest
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def script(job: Job, name: str, runs: list[list[str]], folder: str, binaries: str, command: str) -> str:
    """Return the script for sbatch, with a launcher per node. Several runs become a job array with a task each.

    Args:
        job: the resources.
        name: the job's name.
        runs: for each run main.py, a YAML and key=value words, including the run's name and autoresume=true.
        folder: the working directory.
        binaries: the folder that contains `composer`.
        command: the command that made the script.
    """
    if problems := job.problems():
        raise ConfigError(*problems)
    optional = {key: getattr(job, key) for key in ("account", "partition", "constraint", "time")}
    options = {
        "job-name": name,
        "chdir": folder,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": job.gpus_per_node,
        **{key: value for key, value in optional.items() if value},
        "output": "slurm-%x-%j.log" if len(runs) == 1 else "slurm-%x-%A_%a.log",
        **({"array": f"0-{len(runs) - 1}"} if len(runs) > 1 else {}),
        "open-mode": "append",
        "signal": f"TERM@{SAVE_SECONDS}",
    }
    lines = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items()]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {shlex.quote(option)}" for option in job.sbatch)]
    exports = [f"export {key}={shlex.quote(value)}" for key, value in job.env.items()]
    return TEMPLATE.format(
        command=command,
        options="\n".join(lines),
        exports="\n".join([f'export PATH={shlex.quote(binaries)}:"$PATH"', *exports]),
        minutes=SAVE_SECONDS // 60,
        processes=job.processes,
        world_size=job.world_size,
        choice="" if len(runs) == 1 else _choice(runs),
        words=shlex.join(runs[0]) if len(runs) == 1 else '"${words[@]}"',
    )


def _choice(runs: list[list[str]]) -> str:
    """Return the shell code that selects a task's words."""
    cases = "".join(f"  {task}) words=({shlex.join(words)}) ;;\n" for task, words in enumerate(runs))
    return f'\ncase "$SLURM_ARRAY_TASK_ID" in\n{cases}esac\n'


TEMPLATE = """#!/usr/bin/env bash
# Made by: {command}
{options}
set -euo pipefail
{exports}
{choice}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${{hosts%%$'\\n'*}}
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))  # differs between jobs on one node

# {minutes} minutes before the time limit, SLURM sends SIGTERM to every process on the nodes: the run saves and stops.
# The launcher must ignore it and outlive its processes, because SLURM kills what is left when the launcher exits.
status=0
srun --wait=120 --kill-on-bad-exit=0 --cpu-bind=none bash -c '
  trap "" TERM
  exec composer -n {processes} --world_size {world_size} --node_rank "$SLURM_NODEID" \\
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" "$@"
' composer {words} || status=$?

if [[ $status -eq 143 ]]; then  # stopped by SIGTERM with a checkpoint written, from which the same job can continue
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
