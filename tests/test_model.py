"""The model's initialisation and loss are the published ones, to the figure."""

import math

import pytest
import torch
from composer.loss import soft_cross_entropy
from composer.metrics import CrossEntropy

from config.errors import ConfigError
from model import build_composer_resnet


def test_binary_cross_entropy_is_summed_over_classes() -> None:
    """7.907 at the start with 1000 classes: the sum over classes divided by the batch size, not the mean."""
    torch.manual_seed(0)
    model = build_composer_resnet("resnet18", "binary_cross_entropy", 1000)
    logits = torch.full((4, 1000), -math.log(1000))
    loss = model.loss(logits, (None, torch.tensor([0, 1, 2, 3])))
    assert loss.item() == pytest.approx(7.907, abs=2e-3)


def test_cross_entropy_of_smoothed_targets() -> None:
    """Composer's figure, without its warning about targets that rounding alone makes smaller than 1."""
    labels = torch.arange(12) % 3
    smoothed = torch.nn.functional.one_hot(labels, 3) * 0.9 + 0.1 / 3
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    model = build_composer_resnet("resnet18", "cross_entropy", 3)
    with pytest.warns(UserWarning, match="less than 1 total probability"):
        stock = soft_cross_entropy(logits, smoothed)
    torch.testing.assert_close(model.loss(logits, (None, smoothed)), stock)
    assert torch.equal(model.loss(logits, (None, labels)), soft_cross_entropy(logits, labels))


def test_every_picture_counts_alike_in_the_loss() -> None:
    """Also in a last batch of one; Composer's metric gives that one the weight of a whole batch."""
    metric = build_composer_resnet("resnet18", num_classes=5).get_metrics()["CrossEntropy"]
    output, target = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    stock = CrossEntropy()
    for part in (slice(0, 8), slice(8, 9)):
        metric.update(output[part], target[part])
        stock.update(output[part], target[part])
    exact = torch.nn.functional.cross_entropy(output, target)
    assert float(metric.compute()) == pytest.approx(float(exact), rel=1e-6)
    assert float(stock.compute()) != pytest.approx(float(exact), rel=1e-2)


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = build_composer_resnet("resnet18", "binary_cross_entropy", 50).module
    gammas = torch.cat([m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert 0.48 < gammas.mean().item() < 0.52, "BatchNorm weights are uniform in [0, 1]"
    assert gammas.min() >= 0 and gammas.max() <= 1 and gammas.std().item() > 0.27
    assert torch.allclose(model.fc.bias, torch.tensor(-math.log(50)))
    weight = model.layer2[0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03), "Kaiming normal, fan in"


def test_cross_entropy_keeps_torchs_bias() -> None:
    assert build_composer_resnet("resnet18", "cross_entropy", 50).module.fc.bias.std() > 0


@pytest.mark.parametrize(
    ("name", "loss", "match"), [("resnet19", "cross_entropy", "resnet18"), ("resnet18", "mse", "bin")]
)
def test_unknown(name: str, loss: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build_composer_resnet(name, loss, 10)


def test_metrics_have_the_names_that_composer_users_know() -> None:
    model = build_composer_resnet("resnet18", "cross_entropy", 10)
    assert set(model.get_metrics(is_train=False)) == {"CrossEntropy", "MulticlassAccuracy", "MulticlassTop5Accuracy"}
    assert model.get_metrics(is_train=True) == {}, "training's accuracy is a callback's"
