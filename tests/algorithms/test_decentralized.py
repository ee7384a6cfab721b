"""Decentralized training, with all four-rank checks in one start, and its optimizer on one rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from decent_dp.optim import AccumAdam as PublishedAccumAdam

from recipes.algorithms.decentralized import Decentralized
from recipes.optimizers import AccumAdam
from tests.algorithms.four_ranks import PARITY
from tests.algorithms.tiny import equal, loader, resnet, saved_by, trainer, weights
from tests.algorithms.toy_ranks import WORLD
from tests.runs import metrics
from tests.s3 import free_port

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "four_ranks.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> list[dict[str, Any]]:
    """Results of four_ranks.py for each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(SCRIPT), str(folder), str(image_folder), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10000:]
    found = [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(WORLD)]
    found[0]["output"], found[0]["runs"] = done.stdout, folder / "runs"
    return found


def each(ranks: list[dict[str, Any]], check: str) -> list[Any]:
    """Return one check's results, rank by rank."""
    return [found[check] for found in ranks]


def test_consensus_in_log2_n_steps(ranks: list[dict[str, Any]]) -> None:
    """At learning rate 0, one_peer_exp averages four ranks exactly in two exchanges, but not in one."""
    start, half, end = zip(*each(ranks, "consensus"), strict=True)
    assert len({tuple(one.tolist()) for one in start}) == WORLD
    assert len({tuple(one.tolist()) for one in half}) == 2
    assert len({tuple(one.tolist()) for one in end}) == 1
    torch.testing.assert_close(end[0], sum(start) / WORLD, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("topology", "optimizer"), PARITY)
def test_updates_are_those_of_decent_dp(topology: str, optimizer: str, ranks: list[dict[str, Any]]) -> None:
    """Bitwise for pairs; a sum over four ranks depends on the order, which differs."""
    differences = [found[topology, optimizer] for found in each(ranks, "parity")]
    assert max(differences) <= (0.0 if topology != "complete" else 5e-7), differences


@pytest.mark.parametrize("check", ["evaluation", "evaluation with ema"])
def test_evaluation_uses_the_mean_and_training_each_ranks_weights(check: str, ranks: list[dict[str, Any]]) -> None:
    """The mean of the weights or of EMA's averages, and of the BatchNorm statistics; fit() ends with all of them."""
    found = each(ranks, check)
    mean = sum(one["evaluated"] for one in found) / WORLD
    for one in found:
        for key in ("inside", "statistics", "end"):
            assert torch.equal(one[key], found[0][key]), key
        torch.testing.assert_close(one["inside"], mean, rtol=0, atol=1e-7)
        assert torch.equal(one["after"], one["before"])
    assert not torch.equal(found[0]["before"], found[1]["before"])


def test_logged_distance_is_the_rms_distance_from_the_mean(ranks: list[dict[str, Any]]) -> None:
    found = each(ranks, "evaluation")
    mean = sum(one["evaluated"] for one in found) / WORLD
    squares = [float((one["evaluated"] - mean).square().sum()) for one in found]
    for one in found:
        assert one["logged"] == pytest.approx((sum(squares) / WORLD) ** 0.5, rel=1e-4)


def test_no_rank_waits_for_all_others(ranks: list[dict[str, Any]]) -> None:
    """Without lockstep, seven reductions per batch (five of them Composer's) are gone; the weights are the same."""
    for found in each(ranks, "collectives"):
        lockstep, own_pace = found[True], found[False]
        assert (lockstep[0], own_pace[0]) == (21, 0)
        assert lockstep[1] == own_pace[1] == 7 * 4 * WORLD
        assert torch.equal(lockstep[2], own_pace[2])


def test_out_of_memory_on_one_rank(ranks: list[dict[str, Any]]) -> None:
    """All ranks retry the batch with half the microbatch, and none steps twice."""
    assert each(ranks, "out of memory") == [(7, 1)] * WORLD


def test_resume_is_exact_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    assert each(ranks, "resumed") == [{"sgd": True, "accum_adam": True}] * WORLD


def test_a_signal_to_one_rank_stops_all_after_the_same_batch(ranks: list[dict[str, Any]]) -> None:
    files = [f"ep0-ba16-own{rank}-of-4.pt" for rank in range(WORLD)]
    assert each(ranks, "told to stop") == [(143, 16, [*files, "ep0-ba16-rank0.pt", "latest-rank0.pt"])] * WORLD


def test_through_main(ranks: list[dict[str, Any]]) -> None:
    """The same through main(); without the ranks' own files a run starts from the mean, and reports it."""
    for found in each(ranks, "main"):
        held = ("the same to the bit", "weights of its own", "started from the mean")
        assert {name: found[name] for name in held} == dict.fromkeys(held, True)
    assert "has per-rank weights for 0 of these 4 ranks" in ranks[0]["output"]


def test_recorded_loss_is_the_mean_over_the_ranks(ranks: list[dict[str, Any]]) -> None:
    """Over all batches since the last evaluation, including those before a resume."""
    losses = [found["losses"] for found in each(ranks, "main")]
    assert losses[0] != losses[1]
    (whole,), (again,) = (metrics(ranks[0]["runs"] / name) for name in ("whole", "again"))
    assert float(whole["train_loss"]) == pytest.approx(sum(map(sum, losses)) / (3 * WORLD), abs=1e-6)
    assert again["train_loss"] == whole["train_loss"]


@pytest.mark.filterwarnings("ignore:.*graph_capture_health_check")  # decent-dp calls what torch 2.13 has renamed
@pytest.mark.parametrize("accum_iter", [1, 3])
def test_accum_adam_equals_the_published_one(accum_iter: int) -> None:
    """Bitwise over thirteen steps, with a closure; the gradients are unchanged."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(3))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    arguments: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01, "accum_iter": accum_iter}
    optimizer, published = AccumAdam(ours, **arguments), PublishedAccumAdam(theirs, **arguments)
    for _ in range(13):
        gradients = [torch.randn_like(p) for p in ours]
        for q, gradient in zip(theirs, gradients, strict=True):
            q.grad = gradient.clone()

        def closure(gradients: list[torch.Tensor] = gradients) -> float:
            for p, gradient in zip(ours, gradients, strict=True):
                p.grad = gradient.clone()
            return 1.5

        assert optimizer.step(closure) == 1.5
        published.step()
        assert all(torch.equal(p.grad, gradient) for p, gradient in zip(ours, gradients, strict=True))  # type: ignore[arg-type]
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_accum_adam_resumes_between_updates_of_its_moments(tmp_path: Path) -> None:
    """Five steps with an interval of three, then two more from a checkpoint."""

    def make(parameters: Any, **_: Any) -> AccumAdam:
        return AccumAdam(parameters, lr=0.01, accum_iter=3)

    common: dict[str, Any] = {"optimizer": make, "train_loader": loader(7)}
    whole, part = trainer(duration="7ba", **common), trainer(duration="5ba", **common)
    whole.fit()
    part.fit()
    again = trainer(model=resnet(seed=9), duration="7ba", load_path=saved_by(part, tmp_path), **common)
    again.fit()
    assert equal(weights(whole), weights(again))


def test_one_rank_trains_as_without_it() -> None:
    """Any recipe can be evaluated on one rank; an unknown topology gives a sentence."""
    run, plain = trainer([Decentralized()]), trainer()
    run.fit()
    plain.fit()
    assert equal(weights(run), weights(plain))
    with pytest.raises(ValueError, match=r"unknown value 'star' \(choose complete, ring"):
        Decentralized("star")
