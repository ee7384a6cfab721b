"""Which folder a run gets: a new one, the one that it goes on in or writes over, or a refusal."""

from __future__ import annotations

import itertools
from pathlib import Path

from common.lock_file import LockFile
from config import ConfigError, Run, UserError
from training import earlier_run
from training.devices import on_rank_zero
from training.identity import differences, plain
from training.record import RunFolder
from training.trackers import tracked

ENDING = 2.0  # seconds that a requeued job waits for the one before it to end


def claim(run: Run) -> RunFolder:
    """The folder of this run, the same on every rank, locked by rank 0 until it is no longer held().

    Raises:
        ConfigError: if another run uses it, or it exists and this run is not the same one going on.
        UserError: if it cannot be made.
    """
    locks: list[LockFile] = []  # a lock stays with rank 0
    folder = RunFolder(Path(on_rank_zero(_choose, run, locks)), run)
    folder.lock = locks[0] if locks else None
    folder.tracked = on_rank_zero(tracked, run, folder.path) if run.config.is_train else None
    return folder


def _choose(run: Run, locks: list[LockFile]) -> str:
    config = run.config
    path = Path(config.runs_folder) / (config.run_name or run.default_name())
    if not config.is_train:
        return str(path)
    is_free = bool(config.run_name) and not (run.lenient and (path / "config.yaml").exists())
    path = _make(path, config.autoresume or config.save_overwrite or is_free)
    lock = LockFile(path, ENDING if config.autoresume else 0.0)
    try:
        _check_same_run(path, run)
    except BaseException:
        lock.release()
        raise
    locks.append(lock)
    return str(path)


def _check_same_run(path: Path, run: Run) -> None:
    """Raises ConfigError if the folder holds a run that this one neither goes on with nor may write over."""
    taken = (path / "config.yaml").exists()
    if taken and run.config.autoresume:
        if changed := differences(earlier_run.configuration(path), plain(run)):
            raise ConfigError(
                f"{path} holds a run with another configuration, so autoresume cannot go on with it: "
                f"{'; '.join(changed)}. Give the old values, or start a run of its own from its checkpoint: "
                "autoresume=false run_name=ANOTHER load_path=CHECKPOINT"
            )
    elif taken and not run.config.save_overwrite:
        raise ConfigError(
            f"run_name: {path} exists already. Go on with it by autoresume=true, write over it by save_overwrite=true, "
            "or give another run_name=ANOTHER"
        )


def _make(path: Path, may_exist: bool) -> Path:
    """Make the folder, or path-2, path-3, ... where it must be a new one: two runs may start in the same second."""
    names = itertools.chain([path], (Path(f"{path}-{n}") for n in itertools.count(2)))
    for name in names:
        try:
            name.mkdir(parents=True, exist_ok=may_exist)
            return name
        except FileExistsError:
            if may_exist or not name.is_dir():
                raise UserError(
                    f"runs_folder: {name} exists and is not a folder; give another one with runs_folder=FOLDER"
                ) from None
        except OSError as error:
            raise UserError(
                f"runs_folder: {name} cannot be made ({error.strerror}); give another one with runs_folder=FOLDER"
            ) from None
    raise AssertionError("unreachable")
