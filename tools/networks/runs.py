"""Read a run folder's configuration and choose one of its checkpoints, for programs that use a trained network."""

import shlex
from pathlib import Path

from common.errors import named
from common.folders import Folder, split
from common.suggest import did_you_mean, listing
from config import ConfigError, Run, UserError, load
from config.schema import Config
from loaders.storage.kinds import kind_of
from tools.records.trust import own_file, real

LARGEST_BATCH = 256  # images: a batch for training on eight GPUs would fill the memory of one, and of a CPU


def load_run(folder: Path, outside_code: bool = False) -> Run:
    """Return a folder's run for evaluation: without callbacks and trackers, on any device.

    `outside_code`: whether its configuration may name classes from outside this project, whose code would be run.
    """
    if not folder.is_dir():
        runs = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml"))
        there = f"; {folder.parent} holds {named(runs)}" if runs else ""
        if folder.is_file():
            raise ConfigError(
                f"{folder}: is a file; give a run folder, runs/NAME, and a checkpoint as --checkpoint PATH"
            )
        raise ConfigError(f"{folder}: no such folder{there}{did_you_mean(folder.name, runs)}")
    try:
        file = own_file(real(folder), "config.yaml")
    except FileNotFoundError as error:
        raise ConfigError(f"{folder}: is not a run folder: it has no config.yaml; name one, as in runs/NAME") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{folder}/config.yaml: {error}; put the run's own config.yaml there") from error
    # As in a dry run, the data need not exist: others may be named.
    run = load([str(file), "is_train=false", "dry_run=true"])
    config = run.config
    config.dry_run = config.compile = config.load_weights_only = config.load_unsafe_pickle = False
    config.callbacks, config.loggers, config.device = {}, {}, None
    if run.outside and not outside_code:
        raise ConfigError(
            f"{file}: names code from outside this project ({listing(run.outside.values())}), which an evaluation "
            "would run; if you trust it, add --outside-code"
        )
    config.device_train_microbatch_size = config.grad_accum = None
    dataset = config.eval_dataset
    dataset.batch_size = min(dataset.batch_size, LARGEST_BATCH)
    if kind_of(dataset.storage).decoded:  # pays off over many epochs only; here each image is read once per size
        dataset.storage = dataset.pack_size = None
    return run


def choose_checkpoint(run: Path, config: Config, which: str) -> tuple[Folder, str]:
    """Return the folder and name of a checkpoint: best, latest, or a path or s3:// address; UserError if missing."""
    from training.checkpoint_files import find_latest

    saved = str(run / "checkpoints")  # before save_folder: the run may have been copied here
    if not Path(saved).is_dir():
        saved = config.checkpoint_folder(run.resolve().name) or saved
    folder, name = split(f"{saved.removesuffix('/')}/{which}-rank0.pt" if which in ("best", "latest") else which)
    name, names = find_latest(folder, name), folder.names()
    if name not in names:
        others = [n for n in names if n.endswith(".pt")]
        what = "nor any other"
        if others:
            what = f"that folder holds {named(others)}: --checkpoint {shlex.quote(f'{folder}/{others[-1]}')}"
        meant = did_you_mean(which, ("best", "latest")) if "/" not in which else ""
        raise UserError(f"--checkpoint {which}: there is no {folder}/{name}, {what}{meant}")
    return folder, name
