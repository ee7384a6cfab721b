"""Learning-rate and image-size schedules as pure functions of the step. No torch, so that a dry run can draw them."""

from __future__ import annotations

import math


def cosine_with_warmup(step: float, total: float, warmup: float, alpha_f: float = 0.0) -> float:
    """The multiplier of the peak learning rate at `step`: linear from 0 over `warmup` steps, then a half cosine.

    Args:
        step: 0 for the first batch; the value is exact for that batch (stock Composer lags by one).
        total: length of the run, in the unit of `step`.
        warmup: length of the warm-up, in the same unit.
        alpha_f: the multiplier where the cosine ends, at `total`.
    """
    if step < warmup:
        return step / warmup
    progress = min(1.0, (step - warmup) / max(total - warmup, 1e-12))
    return alpha_f + (1 - alpha_f) * 0.5 * (1 + math.cos(math.pi * progress))


def constant_with_warmup(step: float, total: float, warmup: float, alpha_f: float = 1.0) -> float:  # noqa: ARG001
    """The multiplier of a constant schedule after a linear warm-up from 0."""
    return min(1.0, step / warmup) if warmup else 1.0


def linear_with_warmup(step: float, total: float, warmup: float, alpha_f: float = 0.0) -> float:
    """The multiplier of a straight line from 1 at the end of the warm-up to alpha_f at `total`."""
    if step < warmup:
        return step / warmup
    return 1 + (alpha_f - 1) * min(1.0, (step - warmup) / max(total - warmup, 1e-12))


SCHEDULES = {
    "cosine_with_warmup": cosine_with_warmup,
    "linear_with_warmup": linear_with_warmup,
    "constant_with_warmup": constant_with_warmup,
}


def size_ladder(crop_size: int, initial_scale: float, size_increment: int = 4, max_sizes: int = 8) -> list[int]:
    """The few sizes, in pixels, that progressive resizing passes through, from initial_scale * crop_size to crop_size.

    Each is a multiple of size_increment but the last, which is crop_size itself. At most max_sizes of them, because
    each one is a compilation under torch.compile and a cuDNN search without it.
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
) -> int:
    """The image side, in pixels, when a fraction `elapsed` of the run is over.

    Initial size until delay_fraction, then linear up to the crop size, which holds for the last finetune_fraction:
    Composer's schedule, but of whole, exact sizes and few of them.
    """
    ramp = 1 - delay_fraction - finetune_fraction
    if elapsed >= 1 - finetune_fraction:
        return crop_size
    progress = 0.0 if ramp <= 0 else max(0.0, elapsed - delay_fraction) / ramp
    wanted = crop_size * (initial_scale + (1 - initial_scale) * progress)
    return min(size_ladder(crop_size, initial_scale, size_increment, max_sizes), key=lambda size: abs(size - wanted))
