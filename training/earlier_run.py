"""The configuration that a run records, and the files that an earlier process left, which anyone may have written."""

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.trees import leaves
from config import ConfigError, Run, UserError
from config.load import defaults
from config.read import UNREADABLE, check_depth, reason
from config.schema import AUTO, METRICS, MIRRORED
from training.secrets import redacted

MEASURED = tuple(column for column, _, _ in METRICS.values())
COLUMNS = (  # of metrics.csv, with MIRRORED after them if these were measured
    *("epoch", "step", "train_loss", *MEASURED, "lr", "image_size"),
    *("train_seconds", "eval_seconds", "wait_seconds", "total_seconds", "samples_per_second"),
)
ACCURACIES = {column: title for column, title, unit in METRICS.values() if unit} | MIRRORED  # columns in percent
_MOST = 2**26  # bytes: a row of metrics.csv takes 100
# Keys that do not change what is trained: a run may resume with other values.
_HARMLESS = (
    "autoresume",
    "callbacks",
    "device",
    "device_train_microbatch_size",
    "dist_timeout",
    "dry_run",
    "grad_accum",
    "loggers",
    "load_path",
    "load_unsafe_pickle",
    "python_log_level",
    "run_name",
    "runs_folder",
    "save_folder",
    "save_interval",
    "save_num_checkpoints_to_keep",
    "save_overwrite",
    "recipe_name",
)
_HARMLESS_IN_DATASETS = (
    *("path", "local", "cache_limit", "preload", "num_workers", "prefetch_factor", "decoder", "flip_tta"),
)


def plain(run: Run) -> dict[str, Any]:
    """Return the configuration as plain containers, resolved for this machine and without secrets."""
    resolved: dict[str, Any] = {}
    if machine := run.prepared:
        resolved = {"device": machine.device, "precision": machine.precision, "grad_accum": None}
        resolved["device_train_microbatch_size"] = machine.microbatch
    return redacted(asdict(run.config) | resolved)


def differences(old: Any, new: dict[str, Any]) -> list[str]:
    """Return the differences that change the training, each as 'key: old -> new'."""
    before, after = training_keys(OmegaConf.to_container(old, resolve=True)), training_keys(new)
    # Keys added since the old run count as defaults, which keep the program's earlier behavior.
    default = training_keys(defaults())
    before = {key: default[key] for key in after.keys() & default.keys()} | before
    if after.get("model.num_classes") == AUTO:  # counted later, and compared with the checkpoint by name
        del after["model.num_classes"], before["model.num_classes"]
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def training_keys(config: Any) -> dict[str, Any]:
    """Return the values that determine what is trained, by dotted key."""
    kept = {k: v for k, v in config.items() if k not in _HARMLESS}
    for name in ("train_dataset", "eval_dataset"):
        if isinstance(section := kept.get(name, {}), dict):
            kept[name] = {k: v for k, v in section.items() if k not in _HARMLESS_IN_DATASETS}
    return dict(leaves(kept))


def configuration(folder: Path) -> DictConfig:
    """Return the content of config.yaml."""
    path = folder / "config.yaml"
    try:
        text = _read(path)
        check_depth(text)
        content = OmegaConf.load(io.StringIO(text))
        OmegaConf.to_container(content, resolve=True)
        if not isinstance(content, DictConfig):
            raise ValueError("it has no keys")
    except UNREADABLE as error:
        why = str(error) if type(error) is ValueError else reason(error)
        raise ConfigError(
            f"{path}: cannot be read: {why}. Repair it, or delete it: the run then resumes without comparing its "
            "configuration"
        ) from error
    return content


def mapping(path: Path) -> dict[str, Any]:
    """Return the content of summary.json or environment.json; empty if it is missing or damaged."""
    try:
        content = json.loads(_read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def summary(folder: Path) -> dict[str, Any]:
    """Return the content of summary.json; empty before the run's end, or if the file is damaged."""
    return mapping(folder / "summary.json")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.csv; none if there is no such file. Only the user may discard damaged rows."""
    path = folder / "metrics.csv"
    try:
        reader = csv.DictReader(io.StringIO(_read(path)))
        if not {"step", "total_seconds"} <= set(reader.fieldnames or []) <= {*COLUMNS, *MIRRORED}:
            raise ValueError("its first line does not name the columns")
        table = list(reader)
        for line, row in enumerate(table, 2):
            if None in row or None in row.values():
                raise ValueError(f"line {line} is not whole")
            if int(row["step"]) < 0 or not math.isfinite(float(row["total_seconds"])):
                raise ValueError(f"line {line} has impossible figures")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged ({error}). Repair it, or delete it: the run then resumes without its earlier rows"
        ) from error
    return table


def _read(path: Path) -> str:
    """Return a file's text; a pipe or device would never end, and a huge file would fill memory."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > _MOST:
        raise ValueError("it is too large")
    return path.read_text(encoding="utf-8")
