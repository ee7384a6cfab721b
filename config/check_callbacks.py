"""Whether callbacks that look at a metric look at one that a run has: at the end of an epoch it would be too late."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from config.durations import parse
from config.report import Report
from config.suggest import did_you_mean, listing

METRICS = ("CrossEntropy", "MulticlassAccuracy", "MulticlassTop5Accuracy")
"""What an evaluation measures (model.py); training batches have no metrics of Composer's."""
STOPPERS = ("early_stopper", "threshold_stopper")


def check_callbacks(config: DictConfig, report: Report) -> None:
    """The callbacks that stop a run, and one that goes around the checks of load_path."""
    for name in STOPPERS:
        args: Any = config.callbacks.get(name) or {}
        monitor, label, key = args.get("monitor"), args.get("dataloader_label"), f"callbacks.{name}"
        if monitor is not None and monitor not in METRICS:
            report.add(
                f"{key}.monitor",
                f"{monitor!r} is no metric of the evaluation{did_you_mean(monitor, METRICS)}"
                f" (there are {listing(METRICS)})",
            )
        if label is not None and label != "eval":
            report.add(f"{key}.dataloader_label", f"{label!r} has no metrics; type {key}.dataloader_label=eval")
        if isinstance(patience := args.get("patience"), str) and not _is_patience(patience):
            report.add(f"{key}.patience", f"{patience!r} given, but it must be in ep or ba, as in 3ep")
    if "load_checkpoint" in config.callbacks:
        report.add(
            "callbacks.load_checkpoint",
            "loads unchecked, and runs whatever code is in the file; type load_path=CHECKPOINT, and "
            "load_weights_only=true for its weights alone",
        )


def _is_patience(text: str) -> bool:
    try:
        return parse(text).unit in ("ep", "ba")
    except ValueError:
        return False
