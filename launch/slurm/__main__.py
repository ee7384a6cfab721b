"""Print or submit the SLURM job of a run, which saves before the time limit and is requeued.

    python -m launch.slurm --preset 4xA40 yamls/resnet50.yaml recipe_name=adam          # prints the script
    python -m launch.slurm --preset 8xA100 --account PROJECT --submit yamls/resnet50.yaml recipe_name=adam
    python -m launch.slurm --nodes 2 --gpus-per-node H100:8 --time 2:00:00 --submit yamls/resnet50.yaml recipe_name=mild

The configuration is checked before anything is queued. The run gets a name and autoresume=true, so that a job that
reached its time limit or was preempted continues where it stopped. save_folder must be on a disk that all nodes share.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from common import command
from common.suggest import listing
from config import ConfigError, Run, UserError, check_world, load
from config.read import main_script
from launch.slurm.job import Job, presets, script, shape


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command.parser("launch.slurm", __doc__)
    parser.add_argument("words", nargs="+", metavar="ARG", help="a run's YAML and key=value arguments, as of main.py")
    parser.add_argument("--preset", help=f"settings of a known cluster: {listing(presets())}")
    parser.add_argument("--submit", action="store_true", help="submit the script with sbatch instead of printing it")
    parser.add_argument("--nodes", type=int, help="number of machines")
    parser.add_argument("--gpus-per-node", metavar="[KIND:]N", help="as in A40:4; one process per GPU")
    parser.add_argument("--time", help="time limit, as in 8:00:00")
    parser.add_argument("--account", help="account to charge")
    parser.add_argument("--partition", help="partition (queue)")
    parser.add_argument("--constraint", help="required node features, as in MEM512")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="variable for every process; repeatable")
    parser.add_argument("--sbatch", action="append", metavar="OPTION", help="further option, as in --sbatch=--mem=0")
    return parser.parse_intermixed_args(argv)


def load_run(words: list[str]) -> Run:
    """Load the run, with only a warning for data that are missing here, because the nodes may have them."""
    try:
        return load(words)
    except ConfigError as error:
        run = load([*words, "dry_run=true"])  # does not check whether folders exist
        if run.config.train_dataset.path is None:
            raise
        print(f"{error}\n(This is fine if the nodes have it.)", file=sys.stderr)
        return run


def main(argv: Sequence[str] | None = None) -> int:
    """Print or submit the script; return 0."""
    argv = sys.argv[1:] if argv is None else argv
    if any("\n" in word for word in argv):
        raise ConfigError("an argument contains a line break, which a job script does not allow; remove it")
    given = parse(argv)
    options = {key: getattr(given, key) for key in ("preset", *(item.name for item in fields(Job)))}
    job = shape({**options, "env": dict(word.partition("=")[::2] for word in given.env or [])})
    run = load([*given.words, "dry_run=true"])
    # Fixed, because a job that is queued again must find its checkpoints.
    name = run.config.run_name or run.default_name()
    added = [] if run.config.run_name else [f"run_name={name}"]
    words = [*given.words, *added, *([] if run.config.autoresume else ["autoresume=true"])]
    typed = shlex.join(["python", "-m", "launch.slurm", *argv])
    text = script(job, name, [[main_script(), *words]], str(Path.cwd()), str(Path(sys.executable).parent), typed)
    config = load_run(words).config
    check_world(config, job.world_size, job.processes)
    if given.submit:
        submit(text)
    else:
        print(text, end="")
    return 0


def submit(text: str) -> None:
    """Submit a script with sbatch, and print its answer, which contains the job's number."""
    try:
        done = subprocess.run(["sbatch"], input=text, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("sbatch: not found; run this on the cluster's login node, or omit --submit") from error
    if done.returncode:
        raise UserError(f"sbatch rejected the job: {done.stderr.strip() or done.stdout.strip()}")
    print(done.stdout, end="")


def cli(argv: Sequence[str] | None = None) -> int:
    """Run `main`, printing user errors without traceback; return the exit status."""
    return command.run(main, argv)


if __name__ == "__main__":
    sys.exit(cli())
