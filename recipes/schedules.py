"""Learning-rate and image-size schedules as pure functions of the step. No torch, so that a dry run can plot them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from common.durations import parse
from recipes import registry
from recipes.source import taken

Curve = Callable[[float], float]
Milestones = Sequence[tuple[float, float]]  # (step, multiplier), in order
EVERY = ("step", "epoch")


def warm_up(step: float, warmup: float, alpha_i: float) -> float:
    """Return the multiplier of a linear rise from alpha_i to 1 over `warmup` steps."""
    return alpha_i + (1 - alpha_i) * step / warmup


def progress(step: float, total: float, warmup: float = 0.0) -> float:
    """Return the elapsed fraction of what follows the warm-up, at most 1."""
    return min(1.0, (step - warmup) / max(total - warmup, 1e-12))


def half_cosine(progress: float, end: float) -> float:
    """Return a value on a half cosine from 1 to `end`."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_with_warmup(step: float, total: float, warmup: float, alpha_f: float = 0.0, alpha_i: float = 0.0) -> float:
    """Return the learning-rate multiplier: linear from alpha_i over `warmup` steps, then a half cosine to alpha_f.

    The first batch is step 0, and its value is exact (stock Composer lags by one). `total` and `warmup` are in the unit
    of `step`.
    """
    if step < warmup:
        return warm_up(step, warmup, alpha_i)
    return half_cosine(progress(step, total, warmup), alpha_f)


def whole_cosine_with_warmup(
    step: float, total: float, warmup: float, alpha_f: float = 0.0, alpha_i: float = 0.0
) -> float:
    """Return the multiplier of a half cosine over the whole run, whose start the warm-up replaces, as in timm.

    The peak is never reached: the curve jumps down at the end of the warm-up.
    """
    return warm_up(step, warmup, alpha_i) if step < warmup else half_cosine(progress(step, total), alpha_f)


def cosine_with_warmup_from_one(step: float, total: float, warmup: float, stride: float, alpha_f: float = 0.0) -> float:
    """Return the multiplier of a cosine after a warm-up that counts from 1, as NVIDIA's: 1/w, 2/w ... 1, 1, then down.

    `stride` is what is counted, in steps: 1, or an epoch if the rate changes once per epoch.
    """
    return min(1.0, (step + stride) / warmup) if step < warmup else half_cosine(progress(step, total, warmup), alpha_f)


def constant_with_warmup(step: float, warmup: float, alpha_i: float = 0.0, **_: float) -> float:
    """Return the multiplier of a constant schedule after a linear warm-up from alpha_i."""
    return warm_up(step, warmup, alpha_i) if step < warmup else 1.0


def linear_with_warmup(step: float, total: float, warmup: float, alpha_f: float = 0.0, alpha_i: float = 0.0) -> float:
    """Return the multiplier of a straight line from 1 at the end of the warm-up to alpha_f at `total`."""
    if step < warmup:
        return warm_up(step, warmup, alpha_i)
    return 1 + (alpha_f - 1) * progress(step, total, warmup)


def polynomial_with_warmup(
    step: float, total: float, warmup: float, alpha_f: float = 0.0, alpha_i: float = 0.0, power: float = 2.0
) -> float:
    """Return the multiplier of a polynomial from 1 at the end of the warm-up to alpha_f at `total`."""
    if step < warmup:
        return warm_up(step, warmup, alpha_i)
    return alpha_f + (1 - alpha_f) * (1 - progress(step, total, warmup)) ** power


def multistep_with_warmup(step: float, warmup: float, milestones: Milestones, alpha_i: float = 0.0) -> float:
    """Return the multiplier of the last milestone reached, 1 before the first, after a linear warm-up from alpha_i."""
    if step < warmup:
        return warm_up(step, warmup, alpha_i)
    return next((factor for at, factor in reversed(milestones) if step >= at), 1.0)


def piecewise_with_warmup(step: float, warmup: float, milestones: Milestones, alpha_i: float = 0.0) -> float:
    """Return the multiplier of straight lines between the milestones, the first from 1 at the end of the warm-up.

    Two milestones at the same step are a jump. After the last one, its multiplier holds.
    """
    if step < warmup:
        return warm_up(step, warmup, alpha_i)
    begin, before = warmup, 1.0
    for at, factor in milestones:
        if step < at:
            return before + (factor - before) * (step - begin) / (at - begin)
        begin, before = at, factor
    return before


def one_cycle(step: float, total: float, pct_start: float, bottom: float, top: float, end: float) -> float:
    """Return a half cosine from `bottom` to `top` over the first pct_start of the run, then another one to `end`.

    Equals torch's OneCycleLR with two phases; the last step, total - 1, is exactly at the end.
    """
    peak, last = pct_start * total - 1, total - 1
    if step <= peak:
        begin, finish, progress = bottom, top, step / peak if peak > 0 else 1.0
    else:
        begin, finish, progress = top, end, min(1.0, (step - peak) / max(last - peak, 1e-12))
    return finish + (begin - finish) * 0.5 * (1 + math.cos(math.pi * progress))


_WITH_WARMUP: tuple[Callable[..., float], ...] = (
    *(cosine_with_warmup, whole_cosine_with_warmup, cosine_with_warmup_from_one),
    *(linear_with_warmup, polynomial_with_warmup, multistep_with_warmup, piecewise_with_warmup, constant_with_warmup),
)
WITH_WARMUP = {schedule.__name__: schedule for schedule in _WITH_WARMUP}
SCHEDULES = (*WITH_WARMUP, "one_cycle")
WITH_MILESTONES = ("multistep_with_warmup", "piecewise_with_warmup")
_ROUNDING = 1e-9  # of fractions of a run: 1 - 17 / 88 is more than 71 / 88


def learning_rate(
    scheduler: Any, peak: float, total: float, warmup: float, epoch: float = 1.0, milestones: Milestones = ()
) -> Curve:
    """Return the multiplier of the peak learning rate, optimizer.lr, as a function of the step.

    Args:
        scheduler: the section of a configuration.
        peak: optimizer.lr.
        total: length of the run, in steps, as all that follow.
        warmup: length of the warm-up.
        epoch: length of an epoch, for scheduler.every.
        milestones: the schedule's.
    """
    return _held(scheduler, epoch, _each_step(scheduler, peak, total, warmup, epoch, milestones))


def _held(scheduler: Any, epoch: float, curve: Curve) -> Curve:
    """Return a curve that changes as often as scheduler.every says."""
    return curve if scheduler.every == "step" else lambda step: curve(step // epoch * epoch)


def _each_step(scheduler: Any, peak: float, total: float, warmup: float, epoch: float, milestones: Milestones) -> Curve:
    if scheduler.name == "one_cycle":
        bottom = 1 / scheduler.div_factor
        end = bottom / scheduler.final_div_factor
        return partial(one_cycle, total=total, pct_start=scheduler.pct_start, bottom=bottom, top=1.0, end=end)
    alpha_f = scheduler.alpha_f if scheduler.eta_min is None else scheduler.eta_min / peak if peak else 0.0
    values: dict[str, Any] = {"total": total, "warmup": warmup, "alpha_f": alpha_f, "alpha_i": scheduler.alpha_i}
    if not registry.is_outside(scheduler.name):
        values |= {"power": scheduler.power, "milestones": milestones}
        values |= {"stride": epoch if scheduler.every == "epoch" else 1.0}
        function = WITH_WARMUP[scheduler.name]
    else:
        function = registry.load("schedule", scheduler.name, {}, "scheduler.name")
    arguments = taken(function, values)
    return lambda step: function(step=step, **arguments)


def momentum(scheduler: Any, total: float, epoch: float = 1.0) -> Curve | None:
    """Return the momentum as a function of the step; None if it is constant."""
    if scheduler.name != "one_cycle" or scheduler.base_momentum is None:
        return None
    low, high = scheduler.base_momentum, scheduler.max_momentum
    cycle = partial(one_cycle, total=total, pct_start=scheduler.pct_start, bottom=high, top=low, end=high)
    return _held(scheduler, epoch, cycle)


def size_ladder(crop_size: int, initial_scale: float, size_increment: int = 4, max_sizes: int = 8) -> list[int]:
    """Return the image sizes of progressive resizing in pixels, from initial_scale * crop_size to crop_size.

    All but the last, crop_size itself, are multiples of size_increment. There are at most max_sizes, because each one
    costs a compilation under torch.compile, or else a cuDNN search.
    """
    smallest = initial_scale * crop_size
    n = max(2, max_sizes)
    raw = [smallest + (crop_size - smallest) * i / (n - 1) for i in range(n - 1)]
    rounded = {min(crop_size, max(size_increment, round(size / size_increment) * size_increment)) for size in raw}
    return sorted(rounded | {crop_size})


def progressive_size(
    elapsed: float,
    crop_size: int,
    initial_scale: float,
    delay_fraction: float,
    finetune_fraction: float,
    size_increment: int = 4,
    max_sizes: int = 8,
    sizes: Sequence[int] | None = None,
    switches: Sequence[str] | None = None,
    epochs: float | None = None,
) -> int:
    """Return the image size in pixels when a fraction `elapsed` of the run is over.

    Composer's schedule with few, exact sizes: the initial size until delay_fraction, then a linear rise to the crop
    size, which holds for the last finetune_fraction. Or, if `sizes` are given, one after the other, the next one from
    each time in `switches`: in dur or ep, of which the run has `epochs` before it is scaled (None: a ValueError).
    """
    if sizes:
        times = [parse(time) for time in switches or ()]
        if epochs is None and any(time.unit == "ep" for time in times):
            raise ValueError("when an epoch ends depends on the number of images")
        begin = [time.value / (epochs if epochs and time.unit == "ep" else 1) for time in times]
        return sizes[sum(elapsed >= fraction - _ROUNDING for fraction in begin)]
    ramp = 1 - delay_fraction - finetune_fraction
    if elapsed >= 1 - finetune_fraction - _ROUNDING:
        return crop_size
    progress = 0.0 if ramp <= 0 else max(0.0, elapsed - delay_fraction) / ramp
    wanted = crop_size * (initial_scale + (1 - initial_scale) * progress)
    return min(size_ladder(crop_size, initial_scale, size_increment, max_sizes), key=lambda size: abs(size - wanted))
