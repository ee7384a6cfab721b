"""A job for SLURM: its shape, and the script that sbatch takes."""

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


def presets() -> dict[str, Any]:
    """The shapes by name."""
    return read_yaml(PRESETS, str(PRESETS), [])


def shape(said: dict[str, Any]) -> Job:
    """A job of a preset, with what is said over it; sbatch's options and variables are added to the preset's.

    Args:
        said: `preset` and the attributes of a Job; None stands for nothing said.

    Raises:
        ConfigError: if there is no such preset or attribute.
    """
    known, keys = presets(), [item.name for item in fields(Job)]
    said = {key: value for key, value in said.items() if value is not None}
    preset = said.pop("preset", None)
    if preset is not None and preset not in known:
        raise ConfigError(f"preset {preset}: there is none{did_you_mean(preset, known)} (there are {listing(known)})")
    if wrong := [key for key in said if key not in keys]:
        raise ConfigError(*(f"{key}: no such key of a job{did_you_mean(key, keys)}" for key in wrong))
    values = {**known.get(preset, {}), **said}
    values["sbatch"] = [*known.get(preset, {}).get("sbatch", []), *said.get("sbatch", [])]
    values["env"] = {**known.get(preset, {}).get("env", {}), **said.get("env", {})}
    return Job(**values)


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


def script(job: Job, name: str, runs: list[list[str]], folder: str, binaries: str, command: str) -> str:
    """The script for sbatch: one Composer launcher per node. Several runs become an array, a task for each.

    Args:
        job: its shape.
        name: of the job.
        runs: main.py, a YAML and key=value words of each, among them the run's name and autoresume=true.
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
    """What picks a task's words."""
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
