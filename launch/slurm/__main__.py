"""Print or submit the SLURM job of a run: one Composer launcher per node, saved before the time limit, queued again.

    python -m launch.slurm --preset 4xA40 yamls/resnet50.yaml recipe_name=adam          # prints the script
    python -m launch.slurm --preset 8xA100 --account PROJECT --submit yamls/resnet50.yaml recipe_name=adam
    python -m launch.slurm --nodes 2 --gpus-per-node H100:8 --time 2:00:00 --submit yamls/resnet50.yaml recipe_name=mild

The configuration is checked before anything is queued. The run gets a name, and autoresume=true, so that a job which
has used up its time, or was preempted, goes on where it stopped. save_folder must be on a disk that all nodes share.
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
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", help="a run's YAML and key=value words, as after main.py")
    parser.add_argument("--preset", help=f"a shape by name: {listing(presets())}")
    parser.add_argument("--submit", action="store_true", help="hand the script to sbatch, instead of printing it")
    parser.add_argument("--nodes", type=int, help="machines")
    parser.add_argument("--gpus-per-node", metavar="[KIND:]N", help="as in A40:4; one process each")
    parser.add_argument("--time", help="limit, as in 8:00:00")
    parser.add_argument("--account", help="the project that pays")
    parser.add_argument("--partition", help="the queue")
    parser.add_argument("--constraint", help="features of the nodes, as in MEM512")
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", help="a variable for every process; repeatable")
    parser.add_argument("--sbatch", action="append", metavar="OPTION", help="one more option, as in --sbatch=--mem=0")
    return parser.parse_intermixed_args(argv)


def job_of(given: argparse.Namespace) -> Job:
    """The preset with what the command line says over it.

    Raises:
        ConfigError: if there is no such preset.
    """
    said = {item.name: getattr(given, item.name) for item in fields(Job)}
    said["env"] = dict(word.partition("=")[::2] for word in given.env or [])
    return shape({"preset": given.preset, **said})


def load_run(words: list[str]) -> Run:
    """The run of the words. Data that only the nodes see is no mistake, and is said.

    Raises:
        ConfigError: for everything else that is wrong.
    """
    try:
        return load(words)
    except ConfigError as error:
        run = load([*words, "dry_run=true"])  # without a look at the folders
        if run.config.train_dataset.path is None:
            raise
        print(f"{error}\n(fine, if the nodes have it)", file=sys.stderr)
        return run


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script, or submit it; 0."""
    argv = sys.argv[1:] if argv is None else argv
    if any("\n" in word for word in argv):
        raise ConfigError("a word with a line break in it: a job's script takes a line for each; leave it out")
    given = parse(argv)
    job, run = job_of(given), load([*given.words, "dry_run=true"])
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
    """Give a script to sbatch, which says the job's number.

    Raises:
        UserError: if there is no sbatch, or it refuses.
    """
    try:
        done = subprocess.run(["sbatch"], input=text, text=True, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError("sbatch: not found; type this on the cluster's login node, or leave out --submit") from error
    if done.returncode:
        raise UserError(f"sbatch refuses the job: {done.stderr.strip() or done.stdout.strip()}")
    print(done.stdout, end="")


def cli(argv: Sequence[str] | None = None) -> int:
    """`main`, with a sentence in place of a traceback where the mistake is the user's."""
    return command.run(main, argv)


if __name__ == "__main__":
    sys.exit(cli())
