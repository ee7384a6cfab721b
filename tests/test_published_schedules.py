"""Schedules of published recipes against golden values of their sources: learning rates at given epochs or steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from config import ConfigError, durations_of, load
from config.run import milestones_of
from recipes.schedules import learning_rate
from tests.test_schedules import trace

TORCHVISION_V2 = {"lr": 0.5, "every": "epoch", "t_warmup": "5ep", "alpha_i": 0.01}
RSB = {"name": "whole_cosine_with_warmup", "every": "epoch", "t_warmup": "5ep", "eta_min": 1e-6}
A1, A3 = {**RSB, "lr": 5e-3, "alpha_i": 0.02}, {**RSB, "lr": 8e-3, "alpha_i": 0.0125}
NVIDIA = {"name": "cosine_with_warmup_from_one", "lr": 2.048, "every": "epoch", "t_warmup": "8ep"}
NVIDIA_START = {0: 0.256, 1: 0.512, 6: 1.792, 7: 2.048, 8: 2.048}
STEPS = {"name": "multistep_with_warmup", "lr": 0.1, "t_warmup": "0ep", "milestones": [["30ep", 0.1], ["60ep", 0.01]]}
GOYAL = [["30ep", 0.1], ["60ep", 0.01], ["80ep", 0.001]]
FFCV = {"name": "linear_with_warmup", "lr": 1.7, "t_warmup": "2ep", "alpha_i": 1e-4}
FFCV_START = {0: 0.00017, 311: 0.8473609134615381, 312: 0.850085, 623: 1.697275913461538, 624: 1.7}
FFCV_18 = {**FFCV, "lr": 0.5}
MLPERF = {"name": "polynomial_with_warmup", "lr": 10.5, "t_warmup": "786ba", "eta_min": 1e-4}
PUBLISHED: dict[str, tuple[str, int, dict[str, Any], dict[int, float]]] = {
    "torchvision V1": ("90ep", 1, STEPS, {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001}),
    "Goyal": (
        *("90ep", 157, {**STEPS, "lr": 3.2, "t_warmup": "5ep", "alpha_i": 0.03125, "milestones": GOYAL}),
        {0: 0.1, 1: 0.103949, 784: 3.196051, 785: 3.2, 4709: 3.2, 4710: 0.32, 9420: 0.032, 12560: 0.0032},
    ),
    "torchvision V2": (
        *("600ep", 1, TORCHVISION_V2),
        {0: 0.005, 1: 0.104, 4: 0.401, 5: 0.5, 6: 0.4999965152, 150: 0.4302419865, 300: 0.2532998965}
        | {450: 0.0743938699, 598: 1.3939e-5, 599: 3.4848e-6},
    ),
    "RSB A1": (
        *("600ep", 1, A1),
        {0: 1e-4, 1: 0.00108, 4: 0.00402, 5: 0.004999143484, 6: 0.004998766648, 300: 0.0025005, 599: 1.034263e-6},
    ),
    "RSB A2": ("300ep", 1, A1, {5: 0.004996574522, 150: 0.0025005, 299: 1.137049e-6}),
    "RSB A3": (
        *("100ep", 1, A3),
        {0: 1e-4, 1: 0.00168, 4: 0.00642, 5: 0.007950759518, 50: 0.0040005, 99: 2.973512e-6},
    ),
    "NVIDIA 50": ("50ep", 1, NVIDIA, NVIDIA_START | {9: 2.045136688, 25: 1.325829299, 49: 0.002863312}),
    "NVIDIA 90": ("90ep", 1, NVIDIA, NVIDIA_START | {45: 1.180312867, 89: 0.000751431}),
    "NVIDIA 250": ("250ep", 1, NVIDIA, NVIDIA_START | {125: 1.07714951, 249: 8.6285e-05}),
    "ffcv 16": ("16ep", 312, FFCV, FFCV_START | {2496: 0.971428571, 4991: 0.000389194139194}),
    "ffcv 24": ("24ep", 312, FFCV, FFCV_START | {7487: 0.000247668997668}),
    "ffcv 32": ("32ep", 312, FFCV, FFCV_START | {9983: 0.000181623931623}),
    "ffcv 40": ("40ep", 312, FFCV, FFCV_START | {12479: 0.000143387314439}),
    "ffcv 56": ("56ep", 312, FFCV, FFCV_START | {17471: 0.000100902184235}),
    "ffcv 88": ("88ep", 312, FFCV, FFCV_START | {13728: 0.869767442, 27455: 6.335718545e-05}),
    "ffcv rn18 16": ("16ep", 1251, FFCV_18, {0: 5e-5, 1250: 0.24982518, 2502: 0.5, 20015: 2.8549e-5}),
    "ffcv rn18 88": ("88ep", 1251, FFCV_18, {110087: 4.647e-6}),
    "MLPerf 3264": (
        *("14523ba", 393, MLPERF),
        {1: 0.0133588, 785: 10.4866412, 786: 10.5, 7654: 2.6254572, 14522: 0.0001001},
    ),
}


SHIPPED = {
    "torchvision_v1": "torchvision V1",
    "torchvision_v2": "torchvision V2",
    "goyal": "Goyal",
    **{f"rsb_a{number}": f"RSB A{number}" for number in (1, 2, 3)},
    **{f"nvidia_{epochs}": f"NVIDIA {epochs}" for epochs in (50, 90, 250)},
}
"""Recipe -> its schedule above; those of ffcv are compared with its log in test_ffcv.py."""


def rates(length: str, per_epoch: int, section: dict[str, Any], *words: str) -> Any:
    """Return the learning rate as a function of the step; epochs have `per_epoch` steps."""
    given = [f"scheduler.{key}={value}".replace("'", "") for key, value in section.items() if key != "lr"]
    return rates_of(per_epoch, f"max_duration={length}", f"optimizer.lr={section['lr']}", *given, *words)


def rates_of(per_epoch: int, *words: str) -> Any:
    """Return the learning rate of a run as a function of the step."""
    config = load(["yamls/resnet50.yaml", "dry_run=true", *words]).config
    total, warmup = (duration.batches(per_epoch, 1) for duration in durations_of(config))
    milestones = [(time.batches(per_epoch, 1, total), factor) for time, factor in milestones_of(config)]
    lr = config.optimizer["lr"]
    curve = learning_rate(config.scheduler, lr, total, warmup, per_epoch, milestones)
    return lambda step: lr * curve(step)


@pytest.mark.parametrize("name", [*PUBLISHED, *SHIPPED])
def test_golden_learning_rates(name: str) -> None:
    """Of the schedules and of the recipes; each value to the digits with which it was published."""
    length, per_epoch, section, golden = PUBLISHED[SHIPPED.get(name, name)]
    ours = rates_of(per_epoch, f"recipe_name={name}") if name in SHIPPED else rates(length, per_epoch, section)
    for step, published in golden.items():
        digits = len(repr(published).replace(".", "").lstrip("0").partition("e")[0])
        assert ours(step) == pytest.approx(published, rel=0.6 * 10 ** (1 - digits), abs=0.6e-12), step


def test_the_mlperf_recipe_at_its_own_number_of_steps() -> None:
    _, _, _, golden = PUBLISHED["MLPerf 3264"]
    ours = rates_of(393, "recipe_name=mlperf_lars_3264", "max_duration=14523ba")
    assert [ours(step) for step in golden] == pytest.approx([*golden.values()], rel=1e-3)


def test_a_rate_per_epoch_holds_for_all_its_steps() -> None:
    for recipe in ("torchvision V2", "RSB A3", "NVIDIA 90"):
        length, _, section, _ = PUBLISHED[recipe]
        by_epoch, by_step = rates(length, 1, section), rates(length, 7, section)
        assert [by_step(step) for step in range(7 * 20)] == pytest.approx(
            [by_epoch(step // 7) for step in range(7 * 20)]
        )


def test_nvidias_warmup_by_step_counts_from_one() -> None:
    ours = rates("20ba", 5, {**NVIDIA, "every": "step", "t_warmup": "4ba"})
    assert [ours(step) / 2.048 for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_torchs_schedulers_step_by_epoch() -> None:
    """torchvision's references: LinearLR, then CosineAnnealingLR or MultiStepLR, stepped after each epoch."""
    for main, section in (
        (lambda o: CosineAnnealingLR(o, T_max=25), {**TORCHVISION_V2}),
        (lambda o: MultiStepLR(o, [10, 18]), {**TORCHVISION_V2, **STEPS, "t_warmup": "5ep", "lr": 0.5}),
    ):
        if section.get("milestones"):
            section["milestones"] = [["15ep", 0.1], ["23ep", 0.01]]  # SequentialLR counts them from the warm-up's end
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        rise = LinearLR(optimizer, start_factor=0.01, total_iters=5)
        expected = trace(
            lambda o, main=main, rise=rise: SequentialLR(o, [rise, main(o)], milestones=[5]), optimizer, 30
        )
        ours = rates("30ep", 3, section)
        assert [ours(3 * epoch + 2) for epoch in range(30)] == pytest.approx([rate for rate, _ in expected])


def test_piecewise_lines_and_jumps() -> None:
    """The one-machine schedule of "ImageNet in 18 minutes" up to its epoch 16: 1 -> 2, back to 1, then a tenth."""
    points = [["5ep", 2.0], ["5ep", 1.0], ["14ep", 1.0], ["16ep", 1.0], ["16ep", 0.1]]
    ours = rates("27ep", 4, {"name": "piecewise_with_warmup", "lr": 1.0, "t_warmup": "0ep", "milestones": points})
    assert [ours(step) for step in (0, 10, 19, 20, 40, 63, 64, 107)] == [1, 1.5, 1.95, 1, 1, 1, 0.1, 0.1]
    line = {**FFCV, "name": "piecewise_with_warmup", "milestones": [["16ep", 0.0]]}
    both = [rates("16ep", 312, section) for section in (line, FFCV)]
    assert [both[0](step) for step in range(0, 4992, 13)] == pytest.approx(
        [both[1](step) for step in range(0, 4992, 13)]
    )


def test_half_the_length_keeps_the_shape() -> None:
    for length, _, section, _ in PUBLISHED.values():
        section = {"name": "cosine_with_warmup", **section, "every": "step"}
        full, half = (rates(length, 40, section, f"scale_schedule_ratio={ratio}") for ratio in (1, 0.5))
        end = 40 * int(length[:-2]) if length.endswith("ep") else int(length[:-2])
        for part in (0.01, 0.1, 0.35, 0.7, 0.9):
            slack = 0.1 if section["name"].endswith("one") else 1e-3
            assert math.isclose(full(part * end), half(part * end / 2), rel_tol=slack, abs_tol=1e-3)


@pytest.mark.parametrize(
    ("milestones", "said"),
    [
        ("[]", "scheduler.milestones: none given, but multistep_with_warmup changes the learning rate at them; type"),
        ("[30ep]", "'30ep' given, but each must be a time and a fraction of optimizer.lr, at least 0; type"),
        ("[[30ep,x]]", "['30ep', 'x'] given, but each must be"),
        ("[[30ep,-1]]", "['30ep', -1] given, but each must be"),
        ("[[30,0.1]]", "30 is not a duration; write a number and a unit, as in 30ep"),
        ("[[30ba,0.1]]", "30ba depends on the batch size; use epochs, samples or a fraction of the run"),
        ("[[91ep,0.1]]", "91ep is after the end of the run of 90ep (max_duration); type"),
        ("[[60ep,0.1],[30ep,0.01]]", "60ep, 30ep given, but they must be in order, after scheduler.t_warmup=8ep"),
        ("[[0.05dur,0.1]]", "0.05dur given, but they must be in order, after scheduler.t_warmup=8ep"),
    ],
)
def test_impossible_milestones(milestones: str, said: str) -> None:
    words = ["scheduler.name=multistep_with_warmup", f"scheduler.milestones={milestones}"]
    with pytest.raises(ConfigError) as caught:
        load(["yamls/resnet50.yaml", *words, "dry_run=true"])
    assert said in str(caught.value)
