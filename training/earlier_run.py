"""Read the files that an earlier process left in a run folder, which may be damaged or written by anyone."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import ConfigError, UserError
from config.read import UNREADABLE, check_depth, reason
from config.schema import METRICS

MEASURED = tuple(column for column, _, _ in METRICS.values())
COLUMNS = (  # of metrics.csv
    *("epoch", "step", "train_loss", *MEASURED, "lr", "image_size"),
    *("train_seconds", "eval_seconds", "wait_seconds", "total_seconds", "samples_per_second"),
)
ACCURACIES = {column: title for column, title, unit in METRICS.values() if unit}  # columns in per cent
_MOST = 2**26  # bytes: a row of metrics.csv takes 100


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
        if not {"step", "total_seconds"} <= set(reader.fieldnames or []) <= set(COLUMNS):
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
