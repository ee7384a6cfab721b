"""ScheduleFree: the package's steps, the right weights at each event, and evaluations that do not affect training."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import schedulefree
import torch
from composer import Trainer
from composer.core import Event
from torch import nn
from torch.optim.swa_utils import update_bn

from config import ConfigError, durations_of, load
from data import build_imagenet_dataspec
from loaders.images.transforms import NormalizationFn, collate
from recipes import optimizers
from recipes.algorithms.label_smoothing import LabelSmoothing
from recipes.algorithms.schedule_free import ScheduleFree
from recipes.batchnorm_statistics import FirstImages
from recipes.schedules import learning_rate
from tests.algorithms.tiny import Recorder, equal, resnet, saved_by, soft_bce, trainer, weights
from tests.runs import ROOT

ARGUMENTS: dict[str, dict[str, Any]] = {
    "SGDScheduleFree": {"lr": 0.2, "momentum": 0.9, "weight_decay": 1e-4},
    "AdamWScheduleFree": {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1},
}
NAMES = [*ARGUMENTS]


def run_of(image_folder: Path, name: str = "SGDScheduleFree", **arguments: Any) -> Trainer:
    """Build a run over 48 images in batches of eight: six batches per epoch."""

    def optimizer(parameters, **given) -> torch.optim.Optimizer:
        weights, rest = [], []
        for parameter in parameters:
            (weights if parameter.ndim > 1 else rest).append(parameter)
        groups = [{"params": weights}, {"params": rest, "weight_decay": 0.0}]
        return getattr(optimizers, name)(groups, **ARGUMENTS[name])

    data = build_imagenet_dataspec(str(image_folder), False, 8, crop_size=16, seed=3, num_workers=0)
    options = {"train_loader": data, "spin_dataloaders": False, **arguments}
    return trainer([LabelSmoothing(0.1), ScheduleFree(24)], optimizer=optimizer, **options)


def evaluation(image_folder: Path) -> dict[str, Any]:
    """Return the Trainer's arguments for an evaluation after every second batch."""
    options = {"is_train": False, "drop_last": False, "shuffle": False, "num_workers": 0}
    data = build_imagenet_dataspec(str(image_folder), False, 8, crop_size=16, resize_size=20, **options)
    return {"eval_dataloader": data, "eval_interval": "2ba"}


def by_hand(name: str, model: nn.Module, batches: list) -> Any:
    """Train with the package's own optimizer on recorded batches, as it documents; the model ends with the average."""
    parameters = [*model.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = getattr(schedulefree, name)(groups, **ARGUMENTS[name])
    optimizer.train()
    for images, targets in batches:
        optimizer.zero_grad()
        soft_bce(model(images), targets).backward()
        optimizer.step()
    optimizer.eval()
    return optimizer


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_equals_the_package_bitwise(name: str, image_folder: Path):
    """Six steps with evaluations and closures, then the average, with statistics over the first 24 images."""
    run = run_of(image_folder, name, **evaluation(image_folder))
    run.fit()
    model = resnet()
    assert len(run.state.model.seen) == 6
    optimizer = by_hand(name, model, run.state.model.seen)
    data = run.state.train_dataloader.dataset
    images, _ = NormalizationFn()(collate([data[key] for key in FirstImages(data, 24, 8)]))
    update_bn(images.split(8), model)
    assert equal(weights(run.state.model.module), weights(model))
    ours = run.state.optimizers[0]
    assert type(ours).__qualname__ == name
    assert [g["k"] for g in ours.param_groups] == [g["k"] for g in optimizer.param_groups] == [6, 6]


def trace(run: Trainer) -> list[Any]:
    """Fit; return all weights and buffers, the random state and the images before and after each step."""
    events = (Event.BEFORE_FORWARD, Event.BATCH_END)
    looks = [
        Recorder(event, lambda state: (weights(state.model), torch.get_rng_state(), state.batch[0].clone()))
        for event in events
    ]
    run.state.callbacks += looks
    run.fit()
    return [found for look in looks for found in look.found]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_evaluating_and_saving_do_not_affect_training(name: str, image_folder: Path, tmp_path: Path):
    """Weights, statistics, random state and the order of images stay the same."""

    def save(state) -> None:
        with state.algorithms[-1].evaluation_weights(state):
            saved_by(disturbed, tmp_path)

    common = {"duration": "9ba", "device_train_microbatch_size": 4}
    plain = run_of(image_folder, name, **common)
    looks = [Recorder(Event.BATCH_CHECKPOINT, save)]
    disturbed = run_of(image_folder, name, **common, **evaluation(image_folder), callbacks=looks)
    for one, other in zip(trace(plain), trace(disturbed), strict=True):
        assert equal(one[0], other[0])
        assert torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
    assert equal(weights(plain), weights(disturbed))


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_bitwise_the_same(name: str, averaged: bool, image_folder: Path, tmp_path: Path):
    """From mid-epoch, whichever weights the checkpoint's model holds; the whole run saves nothing."""
    whole = run_of(image_folder, name, duration="9ba")
    expected = trace(whole)
    half = run_of(image_folder, name, duration="9ba")
    half.state.callbacks.append(Recorder(Event.BATCH_END, lambda state: state.timestamp.batch == 4 and stop(state)))
    paths = []

    def stop(state) -> None:
        with state.algorithms[-1].evaluation_weights(state) if averaged else nullcontext():
            paths.append(saved_by(half, tmp_path))
        state.stop_training()

    half.fit()
    again = run_of(image_folder, name, duration="9ba", model=resnet(seed=9), load_path=paths[0])
    assert again.state.timestamp.batch == 4
    found = trace(again)
    for one, other in zip(expected[4:9] + expected[13:], found, strict=True):
        assert equal(one[0], other[0]) and torch.equal(one[2], other[2])
    assert equal(weights(whole), weights(again))


@pytest.mark.slow
def test_checkpoints_and_evaluations_hold_the_average(image_folder: Path, tmp_path: Path):
    files: list[Any] = []

    def save(state) -> None:
        with state.algorithms[-1].evaluation_weights(state):
            path = saved_by(run, tmp_path)
        files.append(torch.load(path, weights_only=False)["state"])

    evaluated = Recorder(Event.EVAL_BATCH_END, lambda state: weights(state.model))
    trained = Recorder(Event.BATCH_END, lambda state: weights(state.model))
    looks = [evaluated, trained, Recorder(Event.BATCH_CHECKPOINT, save)]
    run = run_of(image_folder, duration="2ba", callbacks=looks, **evaluation(image_folder))
    run.fit()
    assert len(files) == 2, "one before the evaluation, one after"
    for state, training in zip(files, trained.found, strict=True):
        assert not equal(state["model"], training)
        assert equal(dict(state["algorithms"])["ScheduleFree"]["training_weights"], training)
    assert equal(state["model"], evaluated.found[-1]) and equal(state["model"], weights(run))
    assert not any(group["train_mode"] for group in run.state.optimizers[0].param_groups)

    # A separate evaluation changes nothing, and neither does one of a loaded checkpoint without training data.
    scores = [float(run.state.eval_metrics["eval"]["MulticlassAccuracy"].compute())]
    loaded = run_of(
        image_folder, load_path=str(tmp_path / "checkpoint.pt"), model=resnet(seed=9), **evaluation(image_folder)
    )
    loaded.state.train_dataloader = None
    for later in (run, loaded):
        later.eval()
        scores.append(float(later.state.eval_metrics["eval"]["MulticlassAccuracy"].compute()))
        assert equal(state["model"], weights(later))
    assert scores == [scores[0]] * 3

    # A further fit continues from the training weights.
    before = Recorder(Event.BATCH_START, lambda state: weights(state.model))
    run.state.callbacks.append(before)
    run.fit(duration="1ba")
    assert equal(before.found[0], trained.found[1])


def test_gradients_that_overflow_skip_the_step():
    """As under amp_fp16: a GradScaler steps without a closure, and skips steps with infinite gradients."""
    model = nn.Linear(2, 2)
    optimizer = optimizers.SGDScheduleFree(model.parameters(), lr=0.1)
    optimizer.train()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, float("inf")):
        before = weights(model)
        scaler.scale(model(torch.ones(1, 2)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert equal(before, weights(model)) == (factor != 1.0)
    assert optimizer.param_groups[0]["k"] == 1 and scaler.get_scale() == 2.0


RESNET50 = str(ROOT / "yamls/resnet50.yaml")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("scheduler.name=cosine_with_warmup", "scheduler.name: cosine_with_warmup changes the learning rate"),
        ("algorithms.ema={}", "algorithms.ema: cannot be combined with sgd_schedule_free: it averages weights that"),
        ("algorithms.swa={}", "algorithms.swa: cannot be combined with sgd_schedule_free: it averages weights that"),
        (
            "algorithms.decentralized={}",
            "algorithms.decentralized: cannot be combined with sgd_schedule_free: it averages the ranks' weights",
        ),
        ("optimizer.warmup_steps=9", "optimizer.warmup_steps: is added to scheduler.t_warmup=5ep"),
        ("optimizer.momentum=0", "optimizer.momentum: 0 given, but it must be more than 0"),
        ("algorithms.schedule_free.num_samples=0", "algorithms.schedule_free.num_samples: 0 given"),
        ("algorithms.schedule_free=null", "nothing switches them; type algorithms.schedule_free={}"),
        ("recipe_name=sgd algorithms.schedule_free={}", "finds nothing to switch in optimizer.name=sgd"),
    ],
)
def test_settings_that_conflict_with_schedule_free(words: str, sentence: str):
    with pytest.raises(ConfigError) as caught:
        load([RESNET50, "recipe_name=schedulefree_sgd", "dry_run=true", *words.split()])
    assert caught.value.exit_status == 2
    assert len(caught.value.problems) == 1 and sentence in caught.value.problems[0]


def test_the_recipes_warmup_is_the_optimizers_own():
    """6,255 of 112,590 steps at 1,251 per epoch, to 1/6,255 of the rate; half as many in half a run."""
    config = load([RESNET50, "recipe_name=schedulefree_sgd", "dry_run=true"]).config
    length, warmup = durations_of(config)
    total, steps = (duration.batches(1251, 1024) for duration in (length, warmup))
    assert (total, steps) == (112_590, 6255)
    curve = learning_rate(config.scheduler, config.optimizer["lr"], total, steps)
    optimizer = schedulefree.SGDScheduleFree([nn.Parameter(torch.ones(1))], lr=6.0, warmup_steps=6255)
    optimizer.train()
    for step in range(6300):
        optimizer.step()
        assert 6.0 * curve(step) == pytest.approx(optimizer.param_groups[0]["scheduled_lr"], abs=6.0 / 6255)
    assert curve(0) == pytest.approx(1 / 6255, rel=1e-2) and curve(6255) == curve(total) == 1
    half = load([RESNET50, "recipe_name=schedulefree_sgd", "dry_run=true", "scale_schedule_ratio=0.5"]).config
    assert [str(duration) for duration in durations_of(half)] == ["45ep", "2.5ep"]
