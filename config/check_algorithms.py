"""Whether the algorithms of a run exist, take their arguments, and stand in an order that works."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from common.durations import parse
from common.suggest import listing
from config.check_decentralized import check_decentralized
from config.check_schedule_free import check_schedule_free
from config.layers import MIXERS
from config.report import Report
from config.schema import Config
from recipes import registry

FRACTION = "a fraction, from 0 to 1"
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "progressive_resizing.initial_scale": (lambda v: 0 < v <= 1, "a fraction, more than 0 and at most 1"),
    "progressive_resizing.finetune_fraction": (lambda v: 0 <= v <= 1, FRACTION),
    "progressive_resizing.delay_fraction": (lambda v: 0 <= v <= 1, FRACTION),
    "progressive_resizing.size_increment": (lambda v: v >= 1, "at least 1 pixel"),
    "progressive_resizing.max_sizes": (lambda v: v >= 2, "at least 2"),
    "progressive_resizing.mode": (lambda v: v in ("resize", "crop"), "resize or crop"),
    "colout.p_row": (lambda v: 0 <= v < 1, "a fraction, from 0 to less than 1"),
    "colout.p_col": (lambda v: 0 <= v < 1, "a fraction, from 0 to less than 1"),
    "colout.finetune_fraction": (lambda v: 0 <= v <= 1, FRACTION),
    "label_smoothing.smoothing": (lambda v: 0 <= v <= 1, FRACTION),
    "mixup.alpha": (lambda v: v >= 0, "0 or more"),
    "cutmix.alpha": (lambda v: v >= 0, "0 or more"),
    "blurpool.min_channels": (lambda v: v >= 1, "at least 1"),
    "sam.rho": (lambda v: v >= 0, "0 or more"),
    "sam.epsilon": (lambda v: v >= 0, "0 or more"),
    "sam.interval": (lambda v: v >= 1, "at least 1"),
    "randaugment.severity": (lambda v: 0 <= v <= 10, "from 0 to 10"),
    "randaugment.depth": (lambda v: v >= 1, "at least 1"),
    "randaugment.augmentation_set": (lambda v: v in ("all", "safe", "original"), "all, safe or original"),
    "augmix.severity": (lambda v: 0 <= v <= 10, "from 0 to 10"),
    "augmix.width": (lambda v: v >= 1, "at least 1"),
    "augmix.alpha": (lambda v: v > 0, "more than 0"),
    "augmix.augmentation_set": (lambda v: v in ("all", "safe", "original"), "all, safe or original"),
    "stochastic_depth.target_layer_name": (
        lambda v: v in ("ResNetBottleneck", "ResNetBasicBlock"),
        "ResNetBottleneck or ResNetBasicBlock",
    ),
    "stochastic_depth.drop_rate": (lambda v: 0 <= v <= 1, FRACTION),
    "stochastic_depth.stochastic_method": (lambda v: v in ("block", "sample"), "block or sample"),
    "stochastic_depth.drop_distribution": (lambda v: v in ("uniform", "linear"), "uniform or linear"),
    "stochastic_depth.drop_warmup": (lambda v: 0 <= part_of_run(v) <= 1, "a fraction of the run, as in 0.1dur"),
    "ema.smoothing": (lambda v: v is None or 0 < v < 1, "a fraction between 0 and 1, or null"),
}
"""What the arguments of the algorithms in our recipes can be: the bounds of their classes, which import torch."""
NOT_HERE = {
    "alibi": "biases attention, of which a ResNet has none",
    "gated_linear_units": "is for BERT's layers, of which a ResNet has none",
    "gyro_dropout": "replaces dropout layers, of which a ResNet has none",
    "layer_freezing": "takes parameters out of the optimizer, which then cannot be saved",
    "low_precision_groupnorm": "is for GroupNorm, of which a ResNet has none",
    "low_precision_layernorm": "is for LayerNorm, of which a ResNet has none",
    "no_op_model": "puts a model that learns nothing in the place of yours",
    "selective_backprop": "sends batches through the model before they are normalized on the device",
    "seq_length_warmup": "shortens texts",
}
"""Algorithms of Composer's that can do nothing here, or nothing right, and why."""
DURATIONS: dict[str, tuple[float, tuple[str, ...]]] = {
    "ema.half_life": (1, ("ba", "ep")),
    "ema.update_interval": (1, ("ba", "ep")),
    "ema.ema_start": (0, ("dur", "ba", "ep")),
}
"""Arguments that are lengths of time: the least value, and the units that the class knows."""


def part_of_run(value: Any) -> float:
    """A fraction of the run, as a number or as in '0.1dur'; -1 for what is none."""
    if not isinstance(value, str):
        return value if isinstance(value, (int, float)) else -1
    try:
        duration = parse(value)
    except ValueError:
        return -1
    return duration.value if duration.unit == "dur" else -1


def check_algorithms(config: Config, report: Report) -> None:
    """All algorithms of a run."""
    algorithms = config.algorithms
    for name, args in algorithms.items():
        problems = registry.check("algorithm", name, args, f"algorithms.{name}")
        report.extend(problems)
        if name in NOT_HERE and not problems and registry.is_installed("algorithm", name):
            report.add(f"algorithms.{name}", f"{NOT_HERE[name]}; type algorithms.{name}=null to remove it")
        if not problems:
            check_arguments(name, args, report)
    check_order(algorithms, report)
    check_schedule_free(config, algorithms, report)
    check_decentralized(config, algorithms, report)
    if "progressive_resizing" in algorithms:
        check_resizing(algorithms["progressive_resizing"], config.train_dataset.crop_size, report)
    if config.compile and part_of_run(algorithms.get("stochastic_depth", {}).get("drop_warmup", 0.0)) > 0:
        report.add(
            "algorithms.stochastic_depth.drop_warmup",
            "with compile=true each new drop rate would compile the model anew; set it to 0, or compile=false",
        )


def check_arguments(name: str, args: dict, report: Report) -> None:
    """Arguments whose type is right but whose value cannot be."""
    for key, value in args.items():
        holds, allowed = RANGES.get(f"{name}.{key}", (lambda _: True, ""))
        if not holds(value):
            report.add(f"algorithms.{name}.{key}", f"{value!r} given, but it must be {allowed}")
        if f"{name}.{key}" in DURATIONS and value is not None:
            check_length(f"{name}.{key}", value, report)
    for pair, sentence in pairs(name, args):
        report.add(f"algorithms.{pair}", sentence)


def check_length(key: str, value: str, report: Report) -> None:
    """An argument that is a length of time."""
    least, units = DURATIONS[key]
    try:
        duration = parse(value)
    except ValueError as error:
        report.add(f"algorithms.{key}", str(error))
        return
    if duration.value < least or duration.unit not in units:
        report.add(f"algorithms.{key}", f"{value} given, but it must be at least {least:g}, in {listing(units)}")


def pairs(name: str, args: dict) -> Iterable[tuple[str, str]]:
    """Arguments of one algorithm that contradict each other: where, and a sentence."""
    if name == "blurpool" and not (args.get("replace_convs", True) or args.get("replace_maxpools", True)):
        yield "blurpool", "replace_convs and replace_maxpools are both false; at least one must be true"
    if name == "colout" and args.get("finetune_fraction") and not args.get("batch", True):
        yield "colout.finetune_fraction", "must be 0 with batch=false: a loader does not know how far the run is"
    if name == "stochastic_depth" and args.get("stochastic_method") == "sample":
        if part_of_run(args.get("drop_warmup", 0.0)) > 0:
            yield "stochastic_depth.drop_warmup", "must be 0 with stochastic_method=sample"
    if name == "ema":
        yield from ema_pairs(args)


def ema_pairs(args: dict) -> Iterable[tuple[str, str]]:
    """The average decays in one way, in one unit."""
    half_life, interval = args.get("half_life", "1000ba"), args.get("update_interval")
    if half_life is None and args.get("smoothing") is None:
        yield "ema", "half_life and smoothing are both null; give one of them"
    if half_life is not None and args.get("smoothing") is not None:
        yield "ema", "half_life and smoothing say the same thing in two ways; set one of them to null"
    if half_life is not None and interval is not None and unit_of(half_life) != unit_of(interval):
        yield "ema", f"half_life {half_life} and update_interval {interval} must be in the same unit"


def unit_of(value: str) -> str:
    """A duration's unit; nothing for what is none, about which there is a complaint already."""
    try:
        return parse(value).unit
    except ValueError:
        return ""


def check_order(algorithms: dict[str, dict], report: Report) -> None:
    """Label smoothing must reach both of two mixed labels: mixers come before it, and blend labels, not losses."""
    order = list(algorithms)
    if set(MIXERS) <= set(order):
        report.add(
            "algorithms.cutmix",
            "does not go with mixup: each would mix pictures that the other mixed already, with labels that match "
            "neither; type algorithms.cutmix=null or algorithms.mixup=null",
        )
    for mixer in MIXERS:
        if mixer not in order or "label_smoothing" not in order:
            continue
        if algorithms[mixer].get("interpolate_loss") is True:
            report.add(
                f"algorithms.{mixer}.interpolate_loss",
                f"true does not go with label_smoothing, which may smooth only one of the two losses; type "
                f"algorithms.{mixer}.interpolate_loss=false, or algorithms.label_smoothing=null to remove that",
            )
        elif order.index("label_smoothing") < order.index(mixer):
            report.add(
                f"algorithms.{mixer}",
                f"must stand before label_smoothing, which else smooths only one of the two mixed labels; "
                f"move {mixer} up in its YAML",
            )


def check_resizing(args: dict, crop_size: int, report: Report) -> None:
    """The phases of progressive resizing must fit into the run, and its smallest picture must have a pixel."""
    scale, delay, finetune = (
        args.get(key, value)
        for key, value in (("initial_scale", 0.5), ("delay_fraction", 0.5), ("finetune_fraction", 0.2))
    )
    if not all(isinstance(value, (int, float)) for value in (scale, delay, finetune)):
        return
    if delay + finetune > 1:
        report.add(
            "algorithms.progressive_resizing",
            f"delay_fraction {delay:g} and finetune_fraction {finetune:g} add up to more than the run; "
            f"their sum must be at most 1",
        )
    if scale > 0 and crop_size > 0 and crop_size * scale < 1:
        report.add(
            "algorithms.progressive_resizing.initial_scale",
            f"{scale:g} of train_dataset.crop_size {crop_size} is less than one pixel",
        )
