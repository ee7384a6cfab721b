"""The configuration that a run records: plain containers without secrets, comparable with another run's."""

from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from config import Run
from config.dry_run import leaves
from config.load import defaults
from training.secrets import redacted

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
_HARMLESS_IN_DATASETS = ("path", "local", "cache_limit", "preload", "num_workers", "prefetch_factor", "decoder")


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
