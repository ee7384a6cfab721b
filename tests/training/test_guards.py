"""Guards against problems that stock Composer ignores."""

from __future__ import annotations

import pytest
import torch
from composer import Trainer
from composer.core import Callback, DataSpec
from composer.loggers import InMemoryLogger
from composer.models import ComposerClassifier
from composer.optim import DecoupledSGDW, LinearWithWarmupScheduler
from torch.utils.data import DataLoader, TensorDataset

from common.errors import DataError, TrainingError
from recipes.schedules import cosine_with_warmup, linear_with_warmup
from training.guards import ExactSchedule, FiniteLoss, WholeEpochs
from training.recorder import TrainAccuracy

pytestmark = pytest.mark.slow


class RateLog(Callback):
    """Records the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train_batch(self, state, logger) -> None:
        self.rates.append(state.optimizers[0].param_groups[0]["lr"])


def trainer(batches: int = 8, lr: float = 1.0, **parts) -> Trainer:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(batches * 2, 3, 4, 4), torch.arange(batches * 2) % 3)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    model = ComposerClassifier(net, num_classes=3)
    return Trainer(
        model=model,
        train_dataloader=DataSpec(DataLoader(data, 2)),
        optimizers=DecoupledSGDW(model.parameters(), lr=lr, momentum=0.9),
        progress_bar=False,
        **parts,
    )


def test_learning_rate_of_step_t_is_f_of_t() -> None:
    log = RateLog()
    exact = ExactSchedule(lambda step: cosine_with_warmup(step, total=8, warmup=4))
    trainer(max_duration="1ep", callbacks=[exact, log]).fit()
    assert log.rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_stock_composer_lags_one_step() -> None:
    """Why the guard exists: stock trains the first two steps at 0 and never reaches the end of the curve."""
    log = RateLog()
    trainer(max_duration="1ep", callbacks=[log], schedulers=LinearWithWarmupScheduler("4ba", alpha_f=0.0)).fit()
    assert log.rates[:3] == [0, 0, 0.25]
    assert log.rates[-1] == pytest.approx(linear_with_warmup(6, 8, 4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_loss_that_is_not_finite(bad: float) -> None:
    made = trainer(max_duration="1ep", callbacks=FiniteLoss())
    made.state.model.module[1].weight.data.fill_(bad)
    with pytest.raises(TrainingError, match=r"at step 0 \(epoch 0\), learning rate 1"):
        made.fit()


def test_evaluation_loss_that_is_not_finite() -> None:
    data = TensorDataset(torch.full((4, 3, 4, 4), float("nan")), torch.arange(4) % 3)
    made = trainer(max_duration="1ep", callbacks=FiniteLoss(), eval_dataloader=DataLoader(data, 4))
    with pytest.raises(TrainingError, match=r"the evaluation's loss is nan at step 0 \(epoch 0\)"):
        made.eval()


def test_short_epoch() -> None:
    """Stock Composer ends the epoch, and the run, without a word."""
    trainer(max_duration="1ep").fit()
    with pytest.raises(DataError, match="epoch 0 ended after 8 of 9 batches"):
        trainer(max_duration="1ep", callbacks=WholeEpochs(batches=9, eval_samples=0)).fit()


@pytest.mark.parametrize("wanted", [11, 13])
def test_evaluation_must_count_every_image(wanted: int) -> None:
    data = TensorDataset(torch.randn(12, 3, 4, 4), torch.arange(12) % 3)
    guard = WholeEpochs(batches=8, eval_samples=wanted)
    made = trainer(max_duration="1ep", callbacks=guard, eval_dataloader=DataLoader(data, 4))
    with pytest.raises(DataError, match=f"counted 12 images, but the data set has {wanted}"):
        made.eval()
    guard.eval_samples = 12
    made.eval()


def test_train_accuracy_equals_composers() -> None:
    ours: list[float] = []

    class Keep(Callback):
        def batch_end(self, state, logger) -> None:
            ours.append(accuracy.accuracy)

    accuracy, stock = TrainAccuracy(), InMemoryLogger()
    for microbatch in (1, 2):
        made = trainer(
            max_duration="1ep",
            callbacks=[accuracy, Keep()],
            loggers=stock,
            lr=0.01,
            device_train_microbatch_size=microbatch,
        )
        made.fit()
        made.close()
        logged = [value for _, value in stock.data["metrics/train/MulticlassAccuracy"]]
        # Composer logs its value, then our callback logs its own, then Composer logs the epoch's.
        assert len(ours) == 8 and len(set(ours)) > 1
        assert [float(value) for value in logged[0:16:2]] == ours
        ours.clear()
        stock = InMemoryLogger()
