"""Check the callbacks and loggers whose classes would find a mistake only during training."""

from __future__ import annotations

from typing import Any

from common.durations import parse
from common.suggest import did_you_mean, listing
from config.schema import METRICS
from config.structure import Report
from recipes import registry, source

MONITORS = {"monitor": "dataloader_label", "metric_name": "metric_label"}
"""Arguments that name a metric -> the arguments that name the data it is measured on."""
MEASURED = "eval"  # the label of the evaluation data; Composer's other label, train, has no metrics here
WANDB_PROJECT = 128  # characters at most
WANDB_FORBIDDEN = "/\\#?%:"


def check_trackers(callbacks: dict[str, Any], loggers: dict[str, Any], report: Report) -> None:
    """Check all callbacks and loggers of a run."""
    for section, kind, named in (("callbacks", "callback", callbacks), ("loggers", "logger", loggers)):
        for name, args in named.items():
            problems = registry.check(kind, str(name), args, f"{section}.{name}")
            report.extend(problems)
            if not problems:
                check_monitor(f"{section}.{name}", args, report)
    check_patience(callbacks.get("early_stopper", {}).get("patience"), report)
    if "load_checkpoint" in callbacks:
        report.add(
            "callbacks.load_checkpoint",
            "loads the file unchecked and runs any code in it; type callbacks.load_checkpoint=null "
            "load_path=CHECKPOINT, with load_weights_only to load only its weights",
        )
    if isinstance(loggers.get("wandb"), dict):
        check_wandb(loggers["wandb"], report)


def check_monitor(where: str, args: dict[str, Any], report: Report) -> None:
    """Check that a monitored metric is one that an evaluation measures."""
    for key, label in MONITORS.items():
        metric, data = args.get(key), args.get(label, MEASURED)
        if isinstance(metric, str) and metric not in METRICS:
            meant = did_you_mean(metric, METRICS)
            report.add(f"{where}.{key}", f"unknown metric {metric!r}{meant} (choose {listing(METRICS)})")
        if key in args and data != MEASURED:
            report.add(
                f"{where}.{label}", f"{data!r} given, but only evaluations have metrics; type {where}.{label}=eval"
            )


def check_patience(patience: Any, report: Report) -> None:
    """Check EarlyStopper's patience, which the class itself checks only at the end of an epoch."""
    if patience is None or isinstance(patience, int):
        return
    try:
        is_known = isinstance(patience, str) and parse(patience).unit in ("ep", "ba")
    except ValueError:
        is_known = False
    if not is_known:
        given = f"{patience!r} given, but it must be a number of epochs or batches, as in 3ep"
        report.add("callbacks.early_stopper.patience", given)


def check_wandb(args: dict[str, Any], report: Report) -> None:
    """Check the arguments that wandb.init would reject."""
    given = args.get("init_kwargs")
    given = given if isinstance(given, dict) else {}
    file = source.locate(module := "wandb.sdk.wandb_init")  # None if wandb is not installed
    known = source.parameters(source.Definition(module, "init", file)) if file else {}
    for key in given:
        if known and key not in known:
            meant = did_you_mean(key, known) or f" (it takes {listing(known)})"
            advice = "; put WANDB_API_KEY=... before the command" if "key" in key else meant
            report.add(f"loggers.wandb.init_kwargs.{key}", f"wandb.init has no such argument{advice}")
    for key, project in (("project", args.get("project")), ("init_kwargs.project", given.get("project"))):
        forbidden = [char for char in WANDB_FORBIDDEN if char in str(project)]
        if isinstance(project, str) and (forbidden or len(project) > WANDB_PROJECT):
            report.add(
                f"loggers.wandb.{key}",
                f"{project!r} given, but a project name must have at most {WANDB_PROJECT} characters, and none of "
                f"{' '.join(WANDB_FORBIDDEN)}",
            )
