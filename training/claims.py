"""Choose and lock the folder of a run: a new one, or the one that it resumes in or overwrites."""

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

ENDING = 2.0  # seconds that a requeued job waits for its predecessor to exit


def claim(run: Run) -> RunFolder:
    """Return the folder of this run, the same on every rank; rank 0 holds its lock while it is held().

    Raises:
        ConfigError: if another run uses it, or it exists and this run neither resumes nor overwrites it.
        UserError: if it cannot be created.
    """
    locks: list[LockFile] = []  # filled on rank 0 only
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
    """Raise ConfigError if the folder has a run that this one can neither resume nor overwrite."""
    has_run = (path / "config.yaml").exists()
    if has_run and run.config.autoresume:
        if changed := differences(earlier_run.configuration(path), plain(run)):
            raise ConfigError(
                f"{path}: autoresume=true cannot resume this run, because its configuration differs: "
                f"{'; '.join(changed)}. Use the old values, or start a new run from its checkpoint: type "
                "autoresume=false run_name=ANOTHER load_path=CHECKPOINT"
            )
    elif has_run and not run.config.save_overwrite:
        raise ConfigError(
            f"run_name: {path} already exists. Use autoresume=true to resume it, save_overwrite=true to overwrite it, "
            "or another run_name=ANOTHER"
        )


def _make(path: Path, may_exist: bool) -> Path:
    """Create the folder; if it must be new and exists, path-2, ...: two runs may start in the same second."""
    names = itertools.chain([path], (Path(f"{path}-{n}") for n in itertools.count(2)))
    for name in names:
        try:
            name.mkdir(parents=True, exist_ok=may_exist)
            return name
        except FileExistsError:
            if may_exist or not name.is_dir():
                raise UserError(
                    f"runs_folder: {name} exists and is not a folder; use another one: runs_folder=FOLDER"
                ) from None
        except OSError as error:
            raise UserError(
                f"runs_folder: {name} cannot be created ({error.strerror}); use another one: runs_folder=FOLDER"
            ) from None
    raise AssertionError("unreachable")
