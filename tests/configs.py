"""Shared by the tests of the configuration: the published example's configuration, and YAML files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from config.schema import Config

# The published example's YAML, without the keys that no test needs.
PUBLISHED: dict[str, Any] = {
    "run_name": "r50_i1k_baseline",
    "is_train": True,
    "seed": 17,
    "max_duration": "1ba",
    "device_train_microbatch_size": None,
    "model": {"name": "resnet50", "loss_name": "cross_entropy", "num_classes": 1000},
    "train_dataset": {
        "is_streaming": False,
        "path": "/",
        "local": "/tmp/x",
        "resize_size": -1,
        "crop_size": 16,
        "batch_size": 2,
    },
    "eval_dataset": {
        "is_streaming": False,
        "path": "/",
        "local": "/tmp/x",
        "resize_size": 256,
        "crop_size": 16,
        "batch_size": 2,
    },
    "optimizer": {"lr": 2.048, "momentum": 0.875, "weight_decay": 5.0e-4},
    "scheduler": {"t_warmup": "8ep", "alpha_f": 0.0},
    "loggers": {"progress_bar": {}},
    "recipe_name": None,
    "mild": {"model.loss_name": "binary_cross_entropy", "train_dataset.crop_size": 160, "max_duration": "2ba"},
    "save_folder": None,
    "save_interval": "10ep",
    "save_num_checkpoints_to_keep": 1,
    "load_path": None,
}


def write(folder: Path, name: str, tree: dict[str, Any]) -> str:
    """Write a YAML file and return its path."""
    path = folder / name
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def value_of(config: Config, key: str) -> Any:
    """Return the value at a dotted key of a configuration, or None."""
    value: Any = asdict(config)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
