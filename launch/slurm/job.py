"""A job for SLURM: its shape, and the script that sbatch takes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from config import ConfigError

SAVE_SECONDS = 300  # before the time limit, SLURM asks the run to save and stop
_GPUS = re.compile(r"^(?:[\w.-]+:)?([1-9]\d*)$")
_TIME = re.compile(r"^(?:(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?|(\d+)(?::(\d+))?(?::(\d+))?)$")


@dataclass
class Job:
    """What a job asks for; the attributes are sbatch's options, and those of `python -m launch.slurm`."""

    nodes: int = 1
    gpus_per_node: str = ""  # a number, or KIND:NUMBER
    time: str | None = None  # as sbatch takes it; None: the partition's limit
    account: str | None = None
    partition: str | None = None
    constraint: str | None = None
    sbatch: list[str] = field(default_factory=list)  # further options, as they are typed
    env: dict[str, str] = field(default_factory=dict)  # variables for every process

    @property
    def processes(self) -> int:
        """Processes per node: one per GPU."""
        found = _GPUS.match(self.gpus_per_node)
        return int(found[1]) if found else 0

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.nodes * self.processes

    def problems(self) -> list[str]:
        """What cannot be, as finished sentences."""
        found = []
        if self.nodes < 1:
            found.append(f"--nodes {self.nodes}: give at least 1")
        if not self.gpus_per_node:
            found.append("--gpus-per-node: missing; say --gpus-per-node A100:4, or one of the presets: --preset 4xA100")
        elif not self.processes:
            found.append(f"--gpus-per-node {self.gpus_per_node}: give a number, as in 4, or with a kind, as in A40:4")
        if self.time is not None and (seconds := seconds_of(self.time)) < 2 * SAVE_SECONDS:
            what = "is no time; write 8:00:00 or 1-12:00:00" if seconds < 0 else "is too short to save before its end"
            found.append(f"--time {self.time}: {what}; give at least {2 * SAVE_SECONDS // 60} minutes")
        for option in self.sbatch:
            if not option.startswith("-"):
                found.append(f"--sbatch {option}: give an option as sbatch takes it, as in --sbatch=--mem=0")
        for key in self.env:
            if not re.fullmatch(r"[A-Za-z_]\w*", key):
                found.append(f"--env {key}: is no name of a variable; write --env NAME=VALUE")
        return found


def seconds_of(limit: str) -> int:
    """A time limit as sbatch reads it, in seconds: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS; -1 for others."""
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


def script(job: Job, name: str, words: list[str], folder: str, binaries: str, command: str) -> str:
    """The script for sbatch: one Composer launcher per node.

    Args:
        job: its shape.
        name: of the run and of the job.
        words: main.py, a YAML and key=value words, among them the run's name and autoresume=true.
        folder: where it runs.
        binaries: the folder with `composer` in it.
        command: what made the script.

    Raises:
        ConfigError: with everything that is wrong with the job.
    """
    if problems := job.problems():
        raise ConfigError(*problems)
    asked = {key: getattr(job, key) for key in ("account", "partition", "constraint", "time")}
    options = {
        "job-name": name,
        "chdir": folder,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": job.gpus_per_node,
        **{key: value for key, value in asked.items() if value},
        "output": "slurm-%x-%j.log",
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
        words=shlex.join(words),
    )


TEMPLATE = """#!/usr/bin/env bash
# Made by: {command}
{options}
set -euo pipefail
{exports}

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${{hosts%%$'\\n'*}}
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))  # two jobs on one node do not meet

# {minutes} minutes before the time limit SLURM sends SIGTERM to every process on the nodes: the run saves and stops.
# The launcher ignores it, and ends after its processes: SLURM kills what is left when the launcher has ended.
status=0
srun --wait=120 --kill-on-bad-exit=0 --cpu-bind=none bash -c '
  trap "" TERM
  exec composer -n {processes} --world_size {world_size} --node_rank "$SLURM_NODEID" \\
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" "$@"
' composer {words} || status=$?

if [[ $status -eq 143 ]]; then  # stopped by SIGTERM, with its checkpoint written: the same job goes on from there
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
