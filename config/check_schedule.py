"""Check the learning rate and momentum schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter

from common.durations import parse
from common.errors import ConfigError
from config.run import durations_of, milestones_of
from config.schema import Config
from config.structure import Report
from recipes import registry, source
from recipes.declared import Bound, misfit
from recipes.schedules import WITH_MILESTONES

ONE_CYCLE: dict[str, Bound] = {
    "scheduler.pct_start": "a fraction of the run, more than 0 and less than 1, as in scheduler.pct_start=0.3",
    "scheduler.div_factor": "at least 1, because the learning rate is divided by it",
    "scheduler.final_div_factor": "at least 1, because the learning rate is divided by it",
}
AS_IN = "scheduler.milestones='[[0.3dur,0.1],[0.6dur,0.01]]'"


def check_bounds(config: Config, bounds: Mapping[str, Bound], report: Report) -> None:
    """Check the values of dotted keys; null is always allowed, and -1 where the bound mentions it."""
    for key, bound in bounds.items():
        value = attrgetter(key)(config)
        is_allowed = value is None or (value == -1 and "-1" in bound)
        given = int(value) if isinstance(value, float) and value.is_integer() else value  # as it was typed
        if not is_allowed and (fault := misfit(bound, given)):
            report.add(key, fault)


def check_schedule(config: Config, report: Report) -> None:
    """Check the learning rate and momentum schedules."""
    scheduler, lr = config.scheduler, config.optimizer.get("lr")
    if isinstance(lr, int | float) and scheduler.eta_min is not None and not 0 <= scheduler.eta_min <= lr:
        report.add("scheduler.eta_min", f"{scheduler.eta_min:g} given, but it must be from 0 to optimizer.lr ({lr})")
    if scheduler.name in WITH_MILESTONES and (fault := _fault(config)):
        report.add("scheduler.milestones", fault)
    if scheduler.name != "one_cycle":
        return
    if isinstance(lr, int | float) and lr <= 0:
        report.add("optimizer.lr", f"{lr} given, but the peak of one_cycle must be more than 0")
    check_bounds(config, ONE_CYCLE, report)
    low, high = scheduler.base_momentum, scheduler.max_momentum
    if low is None:
        return
    name = str(config.optimizer.get("name"))
    takes = registry.signature("optimizer", name) if registry.exists("optimizer", name) else source.ANYTHING
    if not 0 <= low <= high < 1:
        given = f"{low:g} and scheduler.max_momentum={high:g} given"
        report.add("scheduler.base_momentum", f"{given}; use 0 <= base_momentum <= max_momentum < 1, or null")
    elif not {"momentum", "betas", *source.ANYTHING} & set(takes):
        report.add(
            "scheduler.base_momentum",
            f"{config.optimizer['name']} has no momentum to cycle; type scheduler.base_momentum=null",
        )


def _fault(config: Config) -> str | None:
    """Return what is wrong with the milestones."""
    scheduler = config.scheduler
    if not scheduler.milestones:
        return f"none given, but {scheduler.name} changes the learning rate at them; type {AS_IN}"
    for pair in scheduler.milestones:
        time, factor = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool) and math.isfinite(factor)
        if not is_number or misfit("at least 0", factor):
            return f"{pair!r} given, but each must be a time and a fraction of optimizer.lr, at least 0; type {AS_IN}"
        try:
            if parse(time).unit == "ba":
                return f"{time} depends on the batch size; use epochs, samples or a fraction of the run: type {AS_IN}"
        except ValueError as error:
            return str(error)
    try:
        length, warmup = durations_of(config)
    except ConfigError:
        return None  # reported by check_lengths
    times = [warmup, *(time for time, _ in milestones_of(config))]
    known = [time for time in times if time.unit in (length.unit, "dur")]
    parts = [time.value if time.unit == "dur" else time.value / length.value for time in known]
    if max(parts, default=0) > 1:
        return f"{known[parts.index(max(parts))]} is after the end of the run of {length} (max_duration); type {AS_IN}"
    if parts != sorted(parts):
        return f"{', '.join(map(str, known[1:]))} given, but they must be in order, after scheduler.t_warmup={warmup}"
    return None
