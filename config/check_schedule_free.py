"""Whether a schedule-free optimizer has what it needs beside it, and nothing that it cannot bear."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from common.durations import parse
from config.report import Report
from config.schema import Config
from recipes import registry

AVERAGING = {
    "ema": "averages the weights once more",
    "swa": "averages the weights once more",
    "decentralized": "averages the ranks' weights, but not what the optimizer computes them from",
}
"""Algorithms that do not go with it, and what they would do."""


def check_schedule_free(config: Config, algorithms: dict[str, dict], report: Report) -> None:
    """The optimizer, the algorithm that switches its weights, and a constant learning rate go together."""
    optimizer = str(config.optimizer.get("name"))
    if not registry.canonical("optimizer", optimizer).endswith("schedule_free"):
        if "schedule_free" in algorithms:
            report.add(
                "algorithms.schedule_free",
                f"finds nothing to switch in optimizer.name={optimizer}; type recipe_name=schedulefree_sgd for an "
                "optimizer that it is for, or algorithms.schedule_free=null",
            )
        return
    if "schedule_free" not in algorithms:
        report.add(
            "optimizer.name",
            f"{optimizer} evaluates other weights than it trains, and nothing switches them; "
            "type algorithms.schedule_free={}",
        )
    elif not at_least_one(algorithms["schedule_free"].get("num_samples", 1)):
        given = algorithms["schedule_free"]["num_samples"]
        report.add("algorithms.schedule_free.num_samples", f"{given!r} given, but it must be at least 1")
    check_rate(config, optimizer, report)
    check_interpolation(config, report)
    for name, what in AVERAGING.items():
        if name in algorithms:
            report.add(
                f"algorithms.{name}",
                f"{what}, and {optimizer} keeps an average of its own, which is evaluated and saved; "
                f"type algorithms.{name}=null, or another recipe_name",
            )


def at_least_one(value: Any) -> bool:
    """Whether a number is 1 or more; True for what is no number, about which there is a complaint already."""
    return not isinstance(value, int) or value >= 1


def check_rate(config: Config, optimizer: str, report: Report) -> None:
    """The learning rate stays where the one warm-up brings it."""
    schedule = config.scheduler
    if schedule.name != "constant_with_warmup":
        report.add(
            "scheduler.name",
            f"{schedule.name} changes the learning rate over the run, in place of which {optimizer} averages its "
            "weights; type scheduler.name=constant_with_warmup",
        )
    try:
        warms_up = parse(schedule.t_warmup).value > 0
    except ValueError:
        return  # there is a complaint already
    if warms_up and config.optimizer.get("warmup_steps"):
        report.add(
            "optimizer.warmup_steps",
            f"comes on top of scheduler.t_warmup={schedule.t_warmup}; type optimizer.warmup_steps=0, or "
            "scheduler.t_warmup=0ba",
        )


def check_interpolation(config: Config, report: Report) -> None:
    """Gradients are taken between the average and the weights that are stepped from, at neither of the two."""
    key = "betas" if "betas" in config.optimizer else "momentum"
    value = config.optimizer.get(key, 0.9)
    first = value if key == "momentum" else value[0] if OmegaConf.is_list(value) and len(value) else None
    if isinstance(first, int | float) and not 0 < first < 1:
        report.add(f"optimizer.{key}", f"{value} given, but {first} must be more than 0 and less than 1, as in 0.9")
