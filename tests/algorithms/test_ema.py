"""EMA: Composer's values, the right weights in the model at all times, checkpoints for any number of ranks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from composer.algorithms import EMA as StockEMA
from composer.algorithms.ema.ema import EMAParameters, compute_ema
from composer.core import Algorithm, Event, State, Time
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.errors import TrainingError
from recipes.algorithms.blurpool import BlurPool
from recipes.algorithms.ema import EMA
from tests.algorithms.tiny import Recorder, equal, loader, resnet, saved_by, trainer, weights

pytestmark = pytest.mark.slow


def fake_state(model: nn.Module, batch: int = 1) -> SimpleNamespace:
    """Build the part of Composer's State that EMA reads."""
    time = SimpleNamespace(get=lambda unit: Time(batch, unit))
    return SimpleNamespace(model=model, timestamp=time)


def test_sixty_updates_equal_composers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4))
    stock, ours = EMAParameters(model), EMA("100ba", update_interval="20ba")
    ours._model = model
    for step in range(60):
        model(torch.randn(4, 3, 8, 8))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        if step == 0:
            stock = EMAParameters(model)
        compute_ema(model, stock, ours.smoothing_per_update)
        ours._update(fake_state(model, batch=20))
    assert ours.smoothing_per_update == pytest.approx(0.87055, abs=1e-5)
    assert ours._parameters.keys() == stock.named_parameters_dict.keys()
    assert ours.named_buffers.keys() == stock.named_buffers_dict.keys()
    for name, expected in (stock.named_parameters_dict | stock.named_buffers_dict).items():
        found = (ours._parameters | ours.named_buffers)[name]
        assert found.dtype == expected.dtype
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6), name
    assert ours.named_buffers["1.num_batches_tracked"] == stock.named_buffers_dict["1.num_batches_tracked"]


@pytest.mark.parametrize(
    "arguments",
    [{"half_life": "4ba"}, {"half_life": "4ba", "update_interval": "2ba"}, {"half_life": "1ep", "ema_start": "1ep"}],
)
def test_evaluated_weights_equal_composers(arguments):
    seen = []
    for kind in (StockEMA, EMA):
        look = Recorder(Event.EVAL_BATCH_END, weights_of_model)
        run = trainer(
            [kind(**arguments)],
            duration="2ep",
            train_loader=loader(4),
            eval_dataloader=loader(1),
            eval_interval="2ba",
            callbacks=[look],
        )
        run.fit()
        seen.append(look.found)
    assert len(seen[0]) >= 4
    for stock, ours in zip(*seen, strict=True):
        for name, tensor in stock.items():
            assert torch.allclose(tensor, ours[name], atol=1e-5), name


def weights_of_model(state):
    """Return a copy of the model's weights."""
    return weights(state.model)


def test_the_model_ends_with_the_average_unlike_in_composer():
    """After fit() the model holds the average; further training continues from the training weights."""
    ends = {}
    for kind in (StockEMA, EMA):
        look = Recorder(Event.BATCH_END, weights_of_model)
        run = trainer([ema := kind("4ba")], callbacks=[look], eval_dataloader=loader(1), eval_interval="1ep")
        run.fit()
        trained = look.found[-1]
        ends[kind] = equal(weights(run), trained)
        assert ema.ema_weights_active == (not ends[kind])
    assert ends == {StockEMA: True, EMA: False}
    look_again = Recorder(Event.BATCH_START, weights_of_model)
    run.state.callbacks.append(look_again)
    run.eval()
    assert ema.ema_weights_active, "an evaluation must restore the average"
    run.fit(duration="1ba")
    assert equal(look_again.found[0], trained)
    assert ema.ema_weights_active


def test_evaluation_weights_restores_everything(tmp_path: Path):
    """Inside the context: the average in the model, the training weights in EMA's state, as in stock's files."""
    checks = []

    def look(state) -> None:
        ema = state.algorithms[0]
        before = weights(state.model)
        pointers = [p.data_ptr() for p in state.model.parameters()]
        average = {k: v.clone() for k, v in ema._parameters.items()}
        with ema.evaluation_weights(state):
            saved = state.state_dict()
            stored = dict(saved["algorithms"])["EMA"]
            checks.append(stored["ema_weights_active"])
            checks.append(all(torch.equal(saved["model"][name], average[name]) for name in average))
            checks.append(
                all(torch.equal(t, before[n]) for n, t in stored["ema_model"]["named_parameters_dict"].items())
            )
        checks.append(equal(before, weights(state.model)) and not ema.ema_weights_active)
        checks.append(pointers == [p.data_ptr() for p in state.model.parameters()])

    trainer([EMA("4ba")], callbacks=[Recorder(Event.BATCH_CHECKPOINT, look)]).fit()
    assert len(checks) == 30 and all(checks)


@pytest.mark.parametrize("active", [False, True])
def test_a_resumed_run_is_bitwise_the_same(active, tmp_path: Path):
    """Whichever weights the checkpoint's model holds, and with a wrapper's prefix in the names."""
    whole = trainer([EMA("4ba", update_interval="2ba")], duration="10ba")
    whole.fit()
    half = trainer([ema := EMA("4ba", update_interval="2ba")], duration="5ba")
    half.fit()
    ema._activate(half.state, active)
    path = saved_by(half, tmp_path)
    content = torch.load(path, weights_only=False)
    stored = dict(content["state"]["algorithms"])["EMA"]["ema_model"]
    for part, tensors in stored.items():
        stored[part] = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save(content, path)
    again = trainer([EMA("4ba", update_interval="2ba")], model=resnet(seed=9), duration="10ba", load_path=path)
    again.fit()
    assert equal(weights(whole), weights(again))


def test_stock_ignores_an_average_with_other_names(tmp_path: Path):
    """Why names are checked: Composer's swap exchanges nothing and reports nothing."""
    model = nn.Linear(2, 2)
    stock = StockEMA("4ba")
    stock.load_state_dict(
        {
            "ema_model": {
                "named_parameters_dict": {"module.weight": torch.zeros(2, 2), "module.bias": torch.zeros(2)},
                "named_buffers_dict": {},
            },
            "ema_weights_active": False,
            "ema_started": True,
        }
    )
    stock._ensure_ema_weights_active(SimpleNamespace(model=model))
    assert stock.ema_weights_active and model.weight.any()


@pytest.mark.parametrize(
    "parameters, buffers",
    [
        ({"weight": (2, 2)}, {}),
        ({"weight": (2, 3), "bias": (2,)}, {}),
        ({"weight": (2, 2), "bias": (2,), "x": (1,)}, {}),
    ],
)
def test_an_average_that_does_not_fit_is_an_error(parameters, buffers):
    ema = EMA("4ba")
    ema._model = nn.Linear(2, 2)
    stored = {
        "named_parameters_dict": {name: torch.zeros(shape) for name, shape in parameters.items()},
        "named_buffers_dict": buffers,
    }
    with pytest.raises(TrainingError, match="does not fit the model"):
        ema.load_state_dict({"ema_model": stored, "ema_weights_active": False, "ema_started": True})


def test_composers_checkpoints_load(tmp_path: Path):
    stock = trainer([theirs := StockEMA("4ba")])
    stock.fit()
    run = trainer([ours := EMA("4ba")], load_path=saved_by(stock, tmp_path), duration="7ba")
    assert all(torch.equal(ours._parameters[k], v) for k, v in theirs.ema_model.named_parameters_dict.items())
    run.fit()


def test_surgery_listed_after_ema():
    """Listed before blurpool, which renames parameters."""
    run = trainer([EMA("4ba"), BlurPool()])
    run.fit()
    assert run.state.algorithms[0].ema_weights_active


def test_smoothing_alone_works():
    """Stock raises AttributeError without an update_interval."""
    with pytest.raises(AttributeError):
        StockEMA(half_life=None, smoothing=0.9)
    ema = EMA(half_life=None, smoothing=0.9)
    assert ema.smoothing_per_update == 0.9 and str(ema.update_interval) == "1ba"
    trainer([ema], duration="2ba").fit()
    assert ema.ema_started


class Exchange(Algorithm):
    """A second algorithm that swaps weights for evaluations."""

    def __init__(self) -> None:
        self.stored: torch.Tensor | None = None

    def match(self, event, state) -> bool:
        return event in (Event.EVAL_START, Event.EVAL_END)

    def apply(self, event, state, logger) -> None:
        weight = state.model.module.fc.weight.data
        if self.stored is None:
            self.stored = torch.zeros_like(weight)
        kept = weight.clone()
        weight.copy_(self.stored)
        self.stored.copy_(kept)


@pytest.mark.parametrize("reversed_at_the_end", [True, False])
def test_two_algorithms_that_swap_weights_restore_them(reversed_at_the_end):
    found = []

    def look(state) -> None:
        found.append(state.model.module.fc.weight.detach().clone())

    after = Recorder(Event.EVAL_AFTER_ALL, look)
    before = Recorder(Event.EVAL_BEFORE_ALL, look)
    run = trainer(
        [EMA("4ba"), Exchange()],
        eval_dataloader=loader(1),
        eval_interval="3ba",
        duration="3ba",
        callbacks=[before, after],
    )
    if not reversed_at_the_end:
        run.engine.algorithm_passes.pop()
    run.fit()
    assert torch.equal(found[0], found[1]) == reversed_at_the_end


class TorchvisionsAverage(AveragedModel):
    """As references/classification/utils.py of torchvision 0.22 defines ExponentialMovingAverage."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, avg_fn=lambda old, new, _: decay * old + (1 - decay) * new, use_buffers=True)


def test_decay_is_torchvisions(tmp_path: Path) -> None:
    """Batches counted in each epoch, copies in a warm-up of an epoch; the same when resumed in mid-epoch."""
    assert EMA(None, decay=0.99998, update_interval="32ba").smoothing_in(600, 8 * 128) == pytest.approx(0.9989077333)
    epochs, steps, warmup = 3, 4, 1
    kept = 1 - (1 - 0.99) * 8 * steps / epochs  # a batch of 8, an update every 4 batches of 6
    reference: list[TorchvisionsAverage] = []
    saved: list[str] = []

    def follow(state: State) -> None:
        """Do as train_one_epoch does after the optimizer's step."""
        model = state.model
        if not reference:
            reference.append(TorchvisionsAverage(model, kept))
        if (state.timestamp.batch_in_epoch.value - 1) % steps == 0:
            reference[0].update_parameters(model)
            if state.timestamp.epoch.value < warmup:
                reference[0].n_averaged.fill_(0)
        if state.timestamp.batch == 9:
            saved.append(saved_by(run, tmp_path))

    arguments = {"half_life": None, "decay": 0.99, "update_interval": f"{steps}ba", "ema_start": f"{warmup}ep"}
    run = trainer([EMA(**arguments)], duration=f"{epochs}ep", callbacks=[Recorder(Event.BATCH_END, follow)])
    run.fit()
    wanted = weights(reference[0].module)
    assert all(torch.allclose(tensor, wanted[name], atol=1e-6) for name, tensor in weights(run).items())
    assert not equal(weights(run), weights(trainer()))
    again = trainer([EMA(**arguments)], model=resnet(seed=9), duration=f"{epochs}ep", load_path=saved[0])
    again.fit()
    assert equal(weights(run), weights(again))
