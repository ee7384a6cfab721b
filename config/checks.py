"""Check the values of a configuration. Every check runs, so all problems are reported at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from common.durations import parse
from common.errors import ConfigError
from common.suggest import listing
from config.check_algorithms import check_algorithms, check_declared, check_ranks
from config.check_data import check_data
from config.check_model import check_model
from config.check_network import check_network
from config.check_schedule import check_bounds, check_schedule
from config.check_trackers import check_trackers
from config.check_tuning import check_freezing, check_grouping
from config.run import durations_of
from config.schema import AUTO, DEVICES, FULL, HEADS, INITS, LOSSES, PRECISIONS, Config
from config.structure import CALLER, COMMAND_LINE, Report
from recipes import registry
from recipes.declared import Bound, misfit
from recipes.schedules import EVERY, SCHEDULES

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LONGEST_NAME = 200  # bytes; most file systems limit a folder name to 255
BOUNDS: dict[str, Bound] = {
    "seed": "from 0 to 4294967295",
    "model.loss_name": tuple(LOSSES),
    "model.init": INITS,
    "model.head": HEADS,
    "precision": PRECISIONS,
    "device": DEVICES,
    "scale_schedule_ratio": "more than 0",
    "scheduler.every": EVERY,
    "scheduler.power": "more than 0",
    "scheduler.alpha_i": "a fraction, from 0 to 1",
    "scheduler.alpha_f": "a fraction, from 0 to 1",
    "save_num_checkpoints_to_keep": "-1 (all) or at least 1",
    "dist_timeout": "more than 0 seconds",
}
"""Key -> its bound, in the vocabulary of recipes/declared.py."""
EVALUATION_DATA: dict[str, Bound] = {
    "crop_size": "at least 1 pixel",
    "resize_size": "at least 1 pixel, or -1 for no resize",
    "batch_size": "at least 1",
    "num_workers": "at least 0, or null",
    "prefetch_factor": "at least 1, or null",
}
DATA = {
    "train_dataset": {**EVALUATION_DATA, "min_crop_area": "more than 0 and at most 1", "repeats": "at least 1"},
    "eval_dataset": {**EVALUATION_DATA, "crop_ratio": "more than 0 and at most 1"},
}
OLD_PRECISIONS = {"amp": "amp_fp16", "bf16": "amp_bf16", "fp16": "amp_fp16"}


def check_values(config: Config, report: Report, lenient: bool) -> None:
    """Report every problem with the values of a configuration, in which `precision: amp` is replaced by amp_fp16.

    `lenient` accepts what the published example accepted.
    """
    config.precision = OLD_PRECISIONS.get(str(config.precision), config.precision)
    check_names(config, report)
    check_bounds(config, BOUNDS, report)
    for section in config.sections():
        check_bounds(config, {f"{section}.{key}": bound for key, bound in DATA[section].items()}, report)
    check_schedule(config, report)
    check_lengths(config, report, lenient)
    check_microbatch(config, report)
    check_optimizer(config, report)
    check_saving(config, report)
    check_data(config, report)
    check_model(config, report)
    check_freezing(config, report)
    check_algorithms(config, report)
    check_network(config, report)
    check_trackers(config.callbacks, config.loggers, report)


def one_of(report: Report, key: str, value: Any, allowed: Iterable[str], kind: str = "") -> None:
    """Report a value that is not in `allowed`; given a `kind`, package.module:Class is allowed as well."""
    if kind and registry.is_outside(str(value)):
        report.extend(registry.check(kind, value, {}, key))
    elif fault := misfit(tuple(allowed), value):
        report.add(key, fault)


def check_names(config: Config, report: Report) -> None:
    """Check the names for which a list of allowed values is not enough."""
    one_of(report, "scheduler.name", config.scheduler.name, SCHEDULES, "schedule")
    if config.python_log_level is not None:
        one_of(report, "python_log_level", config.python_log_level.lower(), LOG_LEVELS)
    if isinstance(config.dry_run, str):
        one_of(report, "dry_run", config.dry_run, ("true", "false", FULL))
    if isinstance(config.compile, str):
        one_of(report, "compile", config.compile, ("true", "false", AUTO))
    set_by_recipe = report.sources.get("precision", "").startswith("recipes/")
    if config.device == "cpu" and str(config.precision).startswith("amp") and not set_by_recipe:
        report.add("precision", f"{config.precision} needs a GPU; with device=cpu use precision=fp32")


def check_lengths(config: Config, report: Report, lenient: bool) -> None:
    """Check that all durations can be parsed and that the warm-up is shorter than the run."""
    keys = ("max_duration", "eval_interval", "save_interval", "scheduler.t_warmup")
    values = [config.max_duration, config.eval_interval, config.save_interval, config.scheduler.t_warmup]
    readable = [check_duration(report, key, value) for key, value in zip(keys, values, strict=True)]
    if not all(readable) or not config.scale_schedule_ratio > 0:
        return
    try:
        length, warmup = durations_of(config)
    except ConfigError as error:
        report.extend(error.problems)
        return
    too_long = warmup.value >= (1 if warmup.unit == "dur" else length.value)
    if too_long and not lenient and warmup.unit in (length.unit, "dur"):
        shorter = f"{length.value / 10:g}{length.unit}"
        report.add(
            "scheduler.t_warmup",
            f"a warm-up of {warmup} takes up the whole run of {length} (max_duration); "
            f"lengthen the run or shorten the warm-up, as in scheduler.t_warmup={shorter}",
        )


def check_duration(report: Report, key: str, value: str) -> bool:
    """Check one duration; return whether it is valid for its key."""
    try:
        duration = parse(value)
    except ValueError as error:
        report.add(key, str(error))
        return False
    if key == "scheduler.t_warmup":
        return True
    if duration.value == 0:
        report.add(key, f"{value} given, but it must be longer than 0; give at least 1ba")
        return False
    if key == "max_duration" and duration.unit == "dur":
        report.add(key, f"{value} is a fraction of max_duration itself; use ep, ba or sp, as in 90ep")
        return False
    if duration.unit != "dur" and not duration.value.is_integer():
        report.add(key, f"{value} is not a whole number; use whole epochs, or batches, as in 500ba")
        return False
    return True


def check_microbatch(config: Config, report: Report) -> None:
    """Check that the microbatch is auto, a number of images or null, and given by one key only."""
    key, value = "device_train_microbatch_size", config.device_train_microbatch_size
    if value is not None and value != "auto":
        if isinstance(value, str) or value < 1:
            report.add(key, f"{value!r} given, but it must be auto, null or a whole number of at least 1")
        elif config.is_train and value > config.train_dataset.batch_size:
            size = config.train_dataset.batch_size
            report.add(key, f"{value} exceeds the whole batch; use at most train_dataset.batch_size, which is {size}")
    accum = config.grad_accum
    if accum is None:
        return
    if isinstance(accum, str) or accum < 1:
        report.add("grad_accum", f"{accum!r} given, but it must be auto, null or a whole number of at least 1")
    elif value is not None:
        report.add("grad_accum", f"{accum} given, but {key}={value} sets the same thing; keep only {key}")


def check_optimizer(config: Config, report: Report) -> None:
    """Check the optimizer's name and arguments."""
    args = dict(config.optimizer)
    name = args.pop("name", None)
    check_grouping(args, str(name), report)
    if not isinstance(name, str) or not registry.exists("optimizer", name):
        one_of(report, "optimizer.name", name, registry.names("optimizer"), "optimizer")
        return
    for key in [key for key, value in args.items() if isinstance(value, dict) and registry.exists("optimizer", key)]:
        given = ", ".join(f"{word}: {value}" for word, value in {"name": key, **args[key]}.items())
        report.add(
            f"optimizer.{key}", f"no such key; the optimizer's name is not a level, so write optimizer: {{{given}}}"
        )
        del args[key]
    if "name" in registry.signature("optimizer", name):
        args["name"] = name
    check_declared(config, "optimizer", name, args, "optimizer", report)
    if args.get("lr") is None:
        report.add("optimizer.lr", f"missing; {name} needs a learning rate, as in optimizer.lr=0.001")
    for key in ("lr", "weight_decay", "momentum"):
        value = args.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not (value >= 0 and math.isfinite(value)):
                report.add(f"optimizer.{key}", f"{value:g} given, but it cannot be negative or infinite")
        elif value is not None and not any(line.startswith(f"optimizer.{key}:") for line in report.problems):
            report.add(f"optimizer.{key}", f"{value!r} given, but it must be a number")


def check_saving(config: Config, report: Report) -> None:
    """Check the names and folders that a run writes."""
    name, folder = config.run_name, config.save_folder
    is_shown = name is None or (name.isprintable() and name == name.strip() and not re.search(r"[/\\{}]", name))
    if name is not None and (not is_shown or name in ("", ".", "..") or len(name.encode()) > LONGEST_NAME):
        shown = f"{name[:40]}..." if len(name) > 40 else name
        report.add(
            "run_name",
            f"{shown!r} given, but it must be usable as a folder name: 1 to {LONGEST_NAME} printable bytes, without "
            "slashes, braces, or leading or trailing spaces, and not . or ..",
        )
    for placeholder in re.findall(r"{([^{}]*)}", folder or ""):
        if placeholder not in ("runs_folder", "run_name"):
            report.add("save_folder", f"unknown placeholder {{{placeholder}}}; use {{runs_folder}} and {{run_name}}")
    if config.autoresume and folder is None:
        report.add("autoresume", "without checkpoints there is nothing to resume from; set save_folder")
    if config.autoresume and name is None:
        report.add("autoresume", "checkpoints are found by run_name, which is not set; set run_name")
    if config.load_weights_only and config.load_path is None:
        report.add("load_weights_only", "nothing to load; set load_path=CHECKPOINT, or load_weights_only=false")
    if config.load_unsafe_pickle and report.sources["load_unsafe_pickle"] not in (COMMAND_LINE, CALLER):
        report.add(
            "load_unsafe_pickle",
            "a file cannot set this, because it may be someone else's; remove it there, and type "
            "load_unsafe_pickle=true",
        )


def check_world(config: Config, world_size: int, ranks_per_node: int | None = None) -> None:
    """Check that every device gets as many images of each data set; a ConfigError names the nearest batch sizes.

    With `ranks_per_node`, check also that the algorithms fit the ranks (RANKS in recipes/declared.py).
    """
    problems = []
    for key, section in config.sections().items():
        size = section.batch_size
        below = size // world_size * world_size
        if size != below:
            near = listing(str(option) for option in (below, below + world_size) if option)
            problems.append(f"{key}.batch_size: {size} is not divisible by {world_size} devices; use {near}")
    per_device = config.train_dataset.batch_size // world_size
    if config.is_train and isinstance(config.grad_accum, int) and 0 < per_device < config.grad_accum:
        problems.append(
            f"grad_accum: {config.grad_accum} exceeds the {per_device} images per device; use at most {per_device}"
        )
    if problems:
        raise ConfigError(*problems)
    if config.is_train and ranks_per_node is not None:
        check_ranks(config, world_size, ranks_per_node)
