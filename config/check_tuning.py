"""Check which parameters a run trains, and at which learning rates."""

from __future__ import annotations

import math
from typing import Any

from common.suggest import closest
from config.schema import AUTO, DECAYED, GROUPING, HEAD_LR_MULTIPLIER, LAYER_DECAY, WEIGHT_DECAY_ON, Config
from config.stages import NONE, STAGES, frozen
from config.structure import Report
from recipes import registry, source
from recipes.declared import misfit

FACTORS = {HEAD_LR_MULTIPLIER: "more than 0", LAYER_DECAY: "more than 0 and at most 1"}


def check_freezing(config: Config, report: Report) -> None:
    """Report stages that do not exist, and freezing without effect or without pretrained weights."""
    model = config.model
    given = ",".join(map(str, model.freeze)) if isinstance(model.freeze, list) else model.freeze
    model.freeze = None if given in (None, NONE, "") else str(given)
    try:
        stages = frozen(model.freeze)
    except ValueError as error:
        report.add("model.freeze", str(error))
        return
    batchnorm = model.freeze_batchnorm
    if isinstance(batchnorm, str) and (fault := misfit((AUTO, "true", "false"), batchnorm)):
        report.add("model.freeze_batchnorm", fault)
    batchnorm = model.freeze_batchnorm = {"true": True, "false": False}.get(str(batchnorm), batchnorm)
    if batchnorm is False and not stages:
        report.add("model.freeze_batchnorm", f"false given, but nothing is frozen; type model.freeze_batchnorm={AUTO}")
    if not (stages or batchnorm is True):
        return
    key = "model.freeze" if stages else "model.freeze_batchnorm"
    instead = "model.freeze=null" if stages else f"model.freeze_batchnorm={AUTO}"
    if config.is_train and not (model.weights or config.load_path or config.dry_run):
        report.add(key, f"what it freezes would stay random; type model.weights=FILE as well, or {instead}")
    if stages == STAGES and (decay := config.optimizer.get(LAYER_DECAY) or 1) != 1:
        report.add(
            f"optimizer.{LAYER_DECAY}",
            f"{decay} given, but with model.freeze={model.freeze} only the head is trained; type "
            f"optimizer.{LAYER_DECAY}=1",
        )


def check_grouping(args: dict[str, Any], name: str, report: Report) -> None:
    """Remove from an optimizer's arguments the keys that divide its parameters into groups, and check them."""
    if fault := misfit(DECAYED, args.pop(WEIGHT_DECAY_ON, "all")):
        report.add(f"optimizer.{WEIGHT_DECAY_ON}", fault)
    for key, bound in FACTORS.items():
        if (factor := args.pop(key, None)) is None:
            continue
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool) and math.isfinite(factor)
        if not is_number or misfit(bound, factor):
            report.add(f"optimizer.{key}", f"{factor!r} given, but it must be a number, {bound}")
    known = registry.signature("optimizer", name) if registry.exists("optimizer", name) else source.ANYTHING
    for key in [key for key in args if key not in known]:
        if (near := closest(key, [*known, *GROUPING])) in GROUPING:
            report.add(f"optimizer.{key}", f"no such key; did you mean optimizer.{near}?")
            del args[key]
