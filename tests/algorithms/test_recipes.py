"""The algorithms of published recipes together: they train, resume bitwise, and compile to one graph."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from composer.core import Event

from recipes import registry
from recipes.algorithms.blurpool import BlurPool
from recipes.algorithms.channels_last import ChannelsLast
from recipes.algorithms.colout import ColOut
from recipes.algorithms.drop_path import DropPath
from recipes.algorithms.ema import EMA
from recipes.algorithms.label_smoothing import LabelSmoothing
from recipes.algorithms.mix import Mix
from recipes.algorithms.mixup import MixUp
from recipes.algorithms.progressive_resizing import ProgressiveResizing
from recipes.algorithms.randaugment import RandAugment
from recipes.algorithms.random_erasing import RandomErasing
from recipes.algorithms.sam import SAM
from recipes.algorithms.stochastic_depth import StochasticDepth
from recipes.optimizers import DecoupledSGDW
from tests.algorithms.tiny import Recorder, equal, graph_breaks, loader, resnet, saved_by, trainer, weights

pytestmark = pytest.mark.slow

FILES = sorted(Path(registry.HERE, "algorithms").glob("[!_]*.py"))


def mild() -> list:
    """Return mild's algorithms in their published order."""
    return [
        BlurPool(),
        ChannelsLast(),
        EMA("4ba", update_interval="2ba"),
        ProgressiveResizing(initial_scale=0.5, delay_fraction=0.4, finetune_fraction=0.2),
        LabelSmoothing(0.08),
    ]


def medium() -> list:
    """Return mild's algorithms, MixUp and SAM."""
    return [*mild(), MixUp(0.2), SAM(rho=0.5, interval=2)]


def hot() -> list:
    """Return medium's algorithms, StochasticDepth, ColOut and RandAugment."""
    return [
        StochasticDepth(stochastic_method="sample", drop_rate=0.1),
        ColOut(0.05, 0.05, finetune_fraction=0.2),
        RandAugment(9, 1),
        *medium(),
    ]


@pytest.mark.parametrize("recipe", [mild, medium, hot])
def test_runs_and_ends_with_the_average_at_full_size(recipe):
    run = trainer(
        recipe(),
        optimizer=DecoupledSGDW,
        duration="10ba",
        train_loader=loader(10, 32),
        eval_dataloader=loader(1, 32),
        eval_interval="4ba",
    )
    run.fit()
    widths = [images.shape[-1] for images, _ in run.state.model.seen]
    assert widths[0] == 16 and widths[-1] == 32
    assert next(a for a in run.state.algorithms if isinstance(a, EMA)).ema_weights_active
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


def mixed() -> list:
    """Return what torchvision_v2 and rsb_a1 do to batches and to the network."""
    average = EMA(None, decay=0.99, update_interval="2ba", ema_start="3ba")
    return [DropPath(0.3), RandomErasing(0.3), Mix(), LabelSmoothing(0.1), average]


@pytest.mark.parametrize("recipe", [medium, hot, mixed])
def test_a_resumed_run_is_bitwise_the_same(recipe, tmp_path: Path):
    common = {"optimizer": DecoupledSGDW, "device_train_microbatch_size": 4, "duration": "12ba"}
    paths: list[str] = []
    save = Recorder(
        Event.BATCH_END, lambda state: state.timestamp.batch == 6 and paths.append(saved_by(whole, tmp_path))
    )
    whole = trainer(recipe(), train_loader=loader(12, 32), callbacks=[save], **common)
    whole.fit()
    again = trainer(recipe(), model=resnet(seed=9), train_loader=loader(12, 32), load_path=paths[0], **common)
    assert again.state.timestamp.batch == 6
    again.fit()
    assert equal(weights(whole), weights(again))


def test_the_hot_network_is_one_graph():
    model = resnet()
    trainer(hot(), model=model)
    assert graph_breaks(model) == 0


def test_every_algorithm_is_registered_and_has_a_repr():
    assert {file.stem for file in FILES} <= set(registry.names("algorithm"))
    for algorithm in hot():
        call = ast.parse(repr(algorithm), mode="eval").body
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == type(algorithm).__name__
        assert registry.table("algorithm")[registry.fold(type(algorithm).__name__)].module == type(algorithm).__module__
