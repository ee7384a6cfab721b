"""SAM: Composer's values, and a state that survives saving, resuming and running out of memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from composer import Trainer
from composer.algorithms import SAM as StockSAM
from composer.core import Event
from composer.trainer._scaler import ClosureGradScaler
from torch.optim.lr_scheduler import StepLR

from recipes.algorithms.mixup import MixUp
from recipes.algorithms.sam import SAM
from tests.algorithms.tiny import Recorder, equal, loader, resnet, saved_by, trainer, weights

pytestmark = pytest.mark.slow


def stock_sam(**arguments) -> StockSAM:
    """Build Composer's SAM without its warning that it cannot resume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StockSAM(**arguments)


@pytest.mark.parametrize("interval", [1, 2])
def test_steps_equal_composers(interval):
    """Up to the rounding of stock's w + e - e; in float64, because training amplifies it."""
    images = loader()
    images.dataset.tensors = (images.dataset.tensors[0].double(), images.dataset.tensors[1])
    found = []
    for algorithms in ([stock_sam(rho=0.1, interval=interval)], [SAM(rho=0.1, interval=interval)], []):
        run = trainer(algorithms, model=resnet().double(), train_loader=images)
        run.fit()
        found.append(weights(run))
    stock, ours, plain = found
    assert all(torch.allclose(stock[name], ours[name], atol=1e-5) for name in stock)
    assert any(not torch.allclose(plain[name], ours[name], atol=1e-2) for name in plain)


def resumed(make, folder: Path, batches: int = 6) -> tuple[Trainer, Trainer]:
    """Return a run of 2 * batches - 1 batches, and the same run resumed in the middle."""
    whole = trainer([make()], duration=f"{2 * batches - 1}ba")
    whole.fit()
    half = trainer([make()], duration=f"{batches - 1}ba")
    half.fit()
    again = trainer([make()], model=resnet(seed=9), duration=f"{2 * batches - 1}ba", load_path=saved_by(half, folder))
    again.fit()
    return whole, again


def test_a_resumed_run_is_bitwise_the_same(tmp_path: Path):
    """Momentum and the position in the interval are restored in mid-interval."""
    whole, again = resumed(lambda: SAM(rho=0.1, interval=2), tmp_path)
    assert equal(weights(whole), weights(again))


def test_composer_loses_the_momentum(tmp_path: Path):
    """Why the class exists: Composer warns that the optimizer's state is missing, and training diverges."""
    with pytest.warns(UserWarning, match="is not in the state_dict"):
        whole, again = resumed(lambda: stock_sam(rho=0.1, interval=2), tmp_path)
    assert not equal(weights(whole), weights(again))


def test_the_checkpoint_looks_like_the_base_optimizers(tmp_path: Path):
    states = []
    for algorithms in ([SAM()], []):
        run = trainer(algorithms)
        run.fit()
        states.append(torch.load(saved_by(run, tmp_path), weights_only=False)["state"]["optimizers"])
    with_sam, plain = (state["DecoupledSGDW"] for state in states)
    assert with_sam["state"].keys() == plain["state"].keys()
    assert with_sam["param_groups"][0].keys() == plain["param_groups"][0].keys()
    assert {key for slots in with_sam["state"].values() for key in slots} == {"momentum_buffer"}


def failing_at(run: Trainer, forward_pass: int) -> None:
    """Make one forward pass of a run fail as if the GPU were full."""
    original, passes = run.state.model.forward, [0]

    def forward(batch):
        passes[0] += 1
        if passes[0] == forward_pass:
            raise RuntimeError("CUDA out of memory")
        return original(batch)

    run.state.model.forward = forward


@pytest.mark.parametrize("make, displaced", [(SAM, False), (stock_sam, True)])
def test_out_of_memory_in_the_second_pass(make, displaced):
    """The weights are restored; stock leaves them at w + e."""
    run = trainer([make(rho=0.5)])
    before = {name: p.detach().clone() for name, p in run.state.model.named_parameters()}
    failing_at(run, 2)
    with pytest.raises(RuntimeError, match="out of memory"):
        run.fit()
    after = dict(run.state.model.named_parameters())
    assert displaced == any(not torch.equal(before[name], after[name]) for name in before)


def test_both_passes_see_the_same_mixture():
    run = trainer([MixUp(0.5), SAM(interval=2)], duration="4ba")
    run.fit()
    seen = run.state.model.seen
    assert len(seen) == 6
    for first, second in ((1, 2), (4, 5)):
        assert torch.equal(seen[first][0], seen[second][0]) and torch.equal(seen[first][1], seen[second][1])
    assert not torch.equal(seen[0][0], seen[1][0])


def test_composer_uses_closures_with_sam():
    """The optimizer has the flag that the Trainer and its scaler check before the scaler is chosen."""
    run = trainer([SAM()])
    assert isinstance(run.state.scaler, ClosureGradScaler)
    assert type(run.state.optimizers[0]).__qualname__ == "DecoupledSGDW"
    assert run.state.optimizers[0]._step_supports_amp_closure


@pytest.mark.parametrize("losses, steps", [([None], 0), ([1.0, None], 0), ([0.0, 0.0], 1)])
def test_gradients_that_are_not_finite_skip_the_step(losses, steps):
    """ClosureGradScaler returns None and the weights stay. A loss of exactly 0 counts as a loss (stock skips it)."""
    run = trainer([sam := SAM()])
    sam.due = True
    optimizer = run.state.optimizers[0]
    before = weights(run)
    answers = iter(losses)

    def closure(**_):
        for p in run.state.model.parameters():
            p.grad = torch.ones_like(p)
        return next(answers)

    assert optimizer.step(closure) == losses[0]
    assert equal(before, weights(run)) == (steps == 0)


def test_works_with_torchs_schedulers_and_hooks():
    """A scheduler created before the Trainer wraps step(); hooks run once per step, also after loading a state."""
    run = trainer()
    model = run.state.model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = StepLR(optimizer, 1)
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    look = Recorder(Event.BATCH_END, lambda state: len(state.model.seen))
    run.close()
    run = Trainer(
        model=model,
        optimizers=optimizer,
        schedulers=scheduler,
        algorithms=[SAM()],
        train_dataloader=run.state.train_dataloader,
        max_duration="6ba",
        callbacks=[look],
        progress_bar=False,
        device="cpu",
    )
    optimizer.load_state_dict(optimizer.state_dict())
    run.fit()
    assert look.found == [2, 4, 6, 8, 10, 12]
    assert len(calls) == 6
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
