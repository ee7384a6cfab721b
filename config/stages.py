"""The stages of a ResNet: which are frozen, and at which learning rate the others are trained. Imports no torch."""

from __future__ import annotations

from common.suggest import closest, listing
from config.schema import HEAD_LR_MULTIPLIER, LAYER_DECAY, Config

STEM, HEAD = "stem", "head"
STAGES = (STEM, "layer1", "layer2", "layer3", "layer4")
"""The backbone, from the images to the features; HEAD follows."""
BACKBONE, THROUGH, NONE = "backbone", "through:", "none"
ALLOWED = f"null, {BACKBONE}, {THROUGH}layer3 (the stem to layer3), or {listing(STAGES)}, with commas between them"


def frozen(freeze: object) -> tuple[str, ...]:
    """Return the stages that model.freeze names, text or None, in their order; a ValueError says what is allowed."""
    if freeze is None:
        return ()
    given = str(freeze)
    if given == BACKBONE:
        return STAGES
    if given.startswith(THROUGH) and given.removeprefix(THROUGH) in STAGES:
        return STAGES[: STAGES.index(given.removeprefix(THROUGH)) + 1]
    names = [name.strip() for name in given.split(",")]
    if all(name in STAGES for name in names):
        return tuple(stage for stage in STAGES if stage in names)
    if {HEAD, "fc"} & set(names):
        raise ValueError(f"{given} given, but the head is always trained; type model.freeze={BACKBONE} for the rest")
    words = [*STAGES, BACKBONE, NONE, *(f"{THROUGH}{stage}" for stage in STAGES)]
    meant = [name if name in STAGES else closest(name, words if len(names) == 1 else STAGES) for name in names]
    hint = f"; did you mean {','.join(map(str, meant))}?" if all(meant) else ""
    raise ValueError(f"unknown value {given!r}{hint} (choose {ALLOWED})")


def multipliers(config: Config) -> dict[str, float]:
    """Return by what the learning rate of each stage and of the head is multiplied."""
    decay, of_head = (float(config.optimizer.get(key) or 1.0) for key in (LAYER_DECAY, HEAD_LR_MULTIPLIER))
    return {stage: decay ** (len(STAGES) - depth) for depth, stage in enumerate(STAGES)} | {HEAD: of_head}


def trained_rates(config: Config) -> dict[str, float]:
    """Return the peak learning rate of each part that is trained; empty if all have the same, optimizer.lr."""
    found = multipliers(config)
    if set(found.values()) == {1.0}:
        return {}
    still = frozen(config.model.freeze)
    return {part: config.optimizer["lr"] * factor for part, factor in found.items() if part not in still}


def rate_line(rates: dict[str, float]) -> str:
    """Return rates as a line: 'stem to layer4 0.0025, head 0.025'."""
    runs: list[list[str]] = []
    order = [*STAGES, HEAD]
    for part, rate in rates.items():
        before = order[order.index(part) - 1]
        if runs and runs[-1][-1] == before and rates[before] == rate:
            runs[-1].append(part)
        else:
            runs.append([part])
    names = [parts[0] if len(parts) == 1 else f"{parts[0]} to {parts[-1]}" for parts in runs]
    return ", ".join(f"{name} {rates[parts[0]]:.3g}" for name, parts in zip(names, runs, strict=True))


def frozen_line(config: Config) -> str:
    """Return what is frozen, as a line; empty if nothing is."""
    stages, batchnorm = frozen(config.model.freeze), config.model.freeze_batchnorm
    names = BACKBONE if stages == STAGES else ", ".join(stages)
    if batchnorm is True:
        return ", ".join(filter(None, [names, "every BatchNorm"]))
    return f"{names}, but not the BatchNorms' statistics" if stages and batchnorm is False else names
