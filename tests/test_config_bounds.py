"""The configuration's bounds are those of the algorithms' classes: no value passes the one and fails the other."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import ConfigError, load
from config.check_algorithms import DURATIONS, RANGES
from recipes import registry

# algorithm -> (arguments that hold, arguments that do not), on both sides of every bound.
BOUNDS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "blurpool": (
        [{"min_channels": 1}, {"replace_convs": False}, {"replace_maxpools": False}],
        [{"min_channels": 0}, {"replace_convs": False, "replace_maxpools": False}],
    ),
    "colout": (
        [
            {"p_row": 0.0, "p_col": 0.0},
            {"p_row": 0.99, "p_col": 0.99},
            {"finetune_fraction": 0.0, "batch": False},
            {"finetune_fraction": 1.0},
        ],
        [
            {"p_row": -0.01},
            {"p_row": 1.0},
            {"p_col": -0.01},
            {"p_col": 1.0},
            {"finetune_fraction": -0.01},
            {"finetune_fraction": 1.01},
            {"finetune_fraction": 0.1, "batch": False},
        ],
    ),
    "ema": (
        [
            {"half_life": "1ba", "update_interval": "1ba"},
            {"half_life": "1ep"},
            {"half_life": None, "smoothing": 0.01, "update_interval": "1ep"},
            {"half_life": None, "smoothing": 0.99},
            {"ema_start": "0dur"},
            {"ema_start": "0ba"},
            {"ema_start": "3ep"},
        ],
        [
            {"half_life": "0ba"},
            {"half_life": "1sp"},
            {"half_life": "0.5dur"},
            {"half_life": "100"},
            {"half_life": None},
            {"smoothing": 0.5},
            {"half_life": None, "smoothing": 0.0},
            {"half_life": None, "smoothing": 1.0},
            {"update_interval": "0ba"},
            {"update_interval": "10sp"},
            {"update_interval": "1ep"},
            {"half_life": "1ep", "update_interval": "1ba"},
            {"ema_start": "10sp"},
        ],
    ),
    "label_smoothing": ([{"smoothing": 0.0}, {"smoothing": 1.0}], [{"smoothing": -0.001}, {"smoothing": 1.001}]),
    "mixup": ([{"alpha": 0.0}, {"alpha": 5}], [{"alpha": -0.01}]),
    "progressive_resizing": (
        [
            {"initial_scale": 0.01},
            {"initial_scale": 1.0},
            {"delay_fraction": 0.0, "finetune_fraction": 0.0},
            {"delay_fraction": 1.0, "finetune_fraction": 0.0},
            {"delay_fraction": 0.0, "finetune_fraction": 1.0},
            {"delay_fraction": 0.7, "finetune_fraction": 0.3},
            {"size_increment": 1},
            {"max_sizes": 2},
            {"mode": "resize"},
            {"mode": "crop"},
        ],
        [
            {"initial_scale": 0.0},
            {"initial_scale": 1.01},
            {"delay_fraction": -0.01},
            {"finetune_fraction": -0.01},
            {"delay_fraction": 1.01, "finetune_fraction": 0.0},
            {"delay_fraction": 0.0, "finetune_fraction": 1.01},
            {"delay_fraction": 0.7, "finetune_fraction": 0.3000001},
            {"delay_fraction": 0.9},
            {"delay_fraction": 1.0, "finetune_fraction": 2.0**-50},
            {"size_increment": 0},
            {"max_sizes": 1},
            {"mode": "bilinear"},
        ],
    ),
    "randaugment": (
        [
            {"severity": 0},
            {"severity": 10},
            {"depth": 1},
            {"augmentation_set": "all"},
            {"augmentation_set": "safe"},
            {"augmentation_set": "original"},
        ],
        [{"severity": -1}, {"severity": 11}, {"depth": 0}, {"augmentation_set": "some"}],
    ),
    "augmix": (
        [
            {"severity": 0},
            {"severity": 10},
            {"depth": -1},
            {"width": 1},
            {"alpha": 0.01},
            {"augmentation_set": "all"},
            {"augmentation_set": "safe"},
            {"augmentation_set": "original"},
        ],
        [{"severity": -1}, {"severity": 11}, {"width": 0}, {"alpha": 0.0}, {"augmentation_set": "some"}],
    ),
    "sam": (
        [{"rho": 0.0}, {"epsilon": 0.0}, {"interval": 1}],
        [{"rho": -0.01}, {"epsilon": -1e-12}, {"interval": 0}],
    ),
    "stochastic_depth": (
        [
            {"drop_rate": 0.0},
            {"drop_rate": 1.0},
            {"target_layer_name": "ResNetBottleneck"},
            {"target_layer_name": "ResNetBasicBlock"},
            {"stochastic_method": "block", "drop_warmup": 0.1},
            {"stochastic_method": "sample", "drop_warmup": 0.0},
            {"stochastic_method": "sample", "drop_warmup": "0dur"},
            {"drop_distribution": "uniform"},
            {"drop_distribution": "linear"},
            {"drop_warmup": 1.0},
            {"drop_warmup": "1dur"},
        ],
        [
            {"drop_rate": -0.01},
            {"drop_rate": 1.01},
            {"target_layer_name": "Bottleneck"},
            {"stochastic_method": "picture"},
            {"stochastic_method": "sample", "drop_warmup": 0.1},
            {"stochastic_method": "sample", "drop_warmup": "0.1dur"},
            {"drop_distribution": "even"},
            {"drop_warmup": -0.01},
            {"drop_warmup": 1.01},
            {"drop_warmup": "1.01dur"},
            {"drop_warmup": "3ep"},
            {"drop_warmup": "soon"},
        ],
    ),
}
CASES = [
    pytest.param(name, args, holds, id=f"{name}-{args}-{holds}")
    for name, (good, bad) in BOUNDS.items()
    for holds, group in ((True, good), (False, bad))
    for args in group
]


def class_takes(name: str, args: dict[str, Any]) -> bool:
    """Whether the algorithm can be made."""
    entry = registry.table("algorithm")[name.replace("_", "")]
    assert entry.module.startswith("recipes.")
    try:
        getattr(importlib.import_module(entry.module), entry.class_name)(**args)
    except ValueError:
        return False
    return True


def configuration_takes(name: str, args: dict[str, Any], folder: Path) -> bool:
    """Whether a run with the algorithm passes, or else whether all complaints are about it."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"dry_run": True, "algorithms": {name: args}}))
    try:
        load([str(path)])
    except ConfigError as error:
        assert all(problem.startswith(f"algorithms.{name}") for problem in error.problems), error.problems
        return False
    return True


@pytest.mark.parametrize(("name", "args", "holds"), CASES)
def test_class_and_configuration_agree(name: str, args: dict[str, Any], holds: bool, tmp_path: Path) -> None:
    assert (class_takes(name, args), configuration_takes(name, args, tmp_path)) == (holds, holds)


def test_every_bound_has_both_sides() -> None:
    """cutmix is Composer's: its class takes any alpha, and fails in training on a negative one."""
    for key in {*RANGES, *DURATIONS} - {"cutmix.alpha"}:
        name, argument = key.split(".")
        assert all(any(argument in args for args in group) for group in BOUNDS[name]), key


def test_composers_cutmix_takes_what_the_configuration_does(tmp_path: Path) -> None:
    import torch
    from composer.algorithms.cutmix import cutmix_batch

    pictures, labels = torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    for alpha, holds in ((0.0, True), (1.0, True), (-0.01, False)):
        assert configuration_takes("cutmix", {"alpha": alpha}, tmp_path) == holds
        if holds:
            cutmix_batch(pictures, labels, alpha=alpha)
            continue
        with pytest.raises(AssertionError):
            cutmix_batch(pictures, labels, alpha=alpha)
