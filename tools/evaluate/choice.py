"""Choose the data and the target folder of an evaluation."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.suggest import did_you_mean
from config import ConfigError, UserError
from config.schema import Config
from loaders.storage.digits import is_made_on_demand
from loaders.storage.kinds import is_archives, kind_at, kind_of
from loaders.transport.remote import is_remote


def choose_data(config: Config, data: str | None, local: str | None) -> None:
    """Set the data set and its cache folder; None keeps the run's own. ConfigError if it cannot be evaluated."""
    dataset = config.eval_dataset
    if data is None:
        if local:
            raise ConfigError(f"--local {local}: is the cache folder of --data; give both, or neither")
        if not kind_of(dataset.storage).reads_path:
            raise ConfigError("this run was measured on random images; name a data set: --data PATH")
        path = dataset.path or ""
        if not (is_remote(path) or is_made_on_demand(path) or (path and Path(path).exists())):
            raise ConfigError(f"{dataset.path}: the run's data set is not here; name it, or another one: --data PATH")
        return
    _check_named(data, local)
    dataset.storage = kind_at(Path(data), "val")
    dataset.path, dataset.local = data, local or (data if kind_of(dataset.storage).is_streaming else None)
    dataset.is_streaming, dataset.preload = bool(dataset.local) and not is_archives(data), None


def check_file(model: Path, data: str, local: str | None) -> None:
    """Raise a ConfigError if a network's file or its data set is not there."""
    if not model.is_file():
        there = [path.name for path in model.parent.glob("*.*")]
        what = "is a folder, not the file of a network" if model.is_dir() else "no such file"
        raise ConfigError(f"--model {model}: {what}{did_you_mean(model.name, there)}")
    _check_named(data, local)


def _check_named(data: str, local: str | None) -> None:
    if is_remote(data) and not local:
        raise ConfigError(f"--data {data}: shards need a cache folder: --local FOLDER")
    if not is_remote(data) and not Path(data).exists():
        raise ConfigError(f"--data {data}: no such folder; it holds val/CLASS/*.JPEG, or shards")


def own_target(run: Path, name: str = "evaluation") -> Path:
    """Return the folder for the results of a run or a file; ConfigError if it is a link out of the run."""
    if run.is_file():
        return run.with_name(f"{run.stem}-{name}")
    target = run / name
    if not target.resolve().is_relative_to(run.resolve()):
        raise ConfigError(f"{target}: leads out of the run; name the folder to write to: -o {target.resolve()}")
    return target


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Replace main.py's advice about an unusable checkpoint with this program's options."""
    from training.saved import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise UserError(f"{error.facts}; name another one: --checkpoint PATH, or other data: --data PATH") from error
