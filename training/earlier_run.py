"""What an earlier process left in a run's folder: a crash of the machine may have cut it, or anybody have made it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from config import ConfigError, UserError
from config.read import UNREADABLE, check_depth, reason

COLUMNS = (  # of metrics.csv
    *("epoch", "step", "train_loss", "val_loss", "top1", "top5", "lr", "image_size"),
    *("train_seconds", "eval_seconds", "wait_seconds", "total_seconds", "samples_per_second"),
)
ACCURACIES = {"top1": "top-1", "top5": "top-5"}  # the columns in per cent, and their names in print
_MOST = 2**26  # bytes: a row of metrics.csv takes 100


def configuration(folder: Path) -> DictConfig:
    """The content of config.yaml.

    Raises:
        ConfigError: it cannot be read.
    """
    path = folder / "config.yaml"
    try:
        text = _read(path)
        check_depth(text)
        content = OmegaConf.load(io.StringIO(text))
        OmegaConf.to_container(content, resolve=True)
        if not isinstance(content, DictConfig):
            raise ValueError("it holds no keys")
    except UNREADABLE as error:
        why = str(error) if type(error) is ValueError else reason(error)
        raise ConfigError(
            f"{path}: cannot be read: {why}. Mend it, or remove it: a run that goes on in that folder is compared with "
            "nothing then"
        ) from error
    return content


def mapping(path: Path) -> dict[str, Any]:
    """The content of summary.json or environment.json; empty if there is none, or it is damaged."""
    try:
        content = json.loads(_read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def summary(folder: Path) -> dict[str, Any]:
    """The content of summary.json; empty before the run's end, or if the file is damaged."""
    return mapping(folder / "summary.json")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.csv; none if there is no such file.

    Raises:
        UserError: it is damaged; what it holds is not thrown away unasked.
    """
    path = folder / "metrics.csv"
    try:
        reader = csv.DictReader(io.StringIO(_read(path)))
        if not {"step", "total_seconds"} <= set(reader.fieldnames or []) <= set(COLUMNS):
            raise ValueError("its first line does not name the columns")
        found = list(reader)
        for line, row in enumerate(found, 2):
            if None in row or None in row.values():
                raise ValueError(f"line {line} is not whole")
            if int(row["step"]) < 0 or not math.isfinite(float(row["total_seconds"])):
                raise ValueError(f"line {line} holds no figures")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged ({error}). Mend it, or remove it: the run goes on without the evaluations so far then"
        ) from error
    return found


def _read(path: Path) -> str:
    """The text of a file: a pipe or a device would never end, and a huge one would take all memory."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > _MOST:
        raise ValueError("it is too large")
    return path.read_text(encoding="utf-8")
