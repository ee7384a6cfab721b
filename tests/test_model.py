"""The model's initialisation and loss are the published ones, to the figure."""

import math

import pytest
import torch
import torchvision
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


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_torchvisions_initialisation(loss: str) -> None:
    """To the bit that of torchvision's own model, but for the bias that binary_cross_entropy starts from."""
    torch.manual_seed(0)
    ours = build_composer_resnet("resnet50", loss, 50, "torchvision").module.state_dict()
    torch.manual_seed(0)
    source = torchvision.models.resnet50(num_classes=50).state_dict()
    free = {"fc.bias"} if loss == "binary_cross_entropy" else set()
    assert {name for name in source if not torch.equal(ours[name], source[name])} == free


@pytest.mark.parametrize(
    ("init", "gamma", "spread", "fan"),
    [("mosaic", 0.5, math.sqrt(1 / 12), "in"), ("torchvision", 1.0, 0.0, "out")],
)
def test_statistics_of_both(init: str, gamma: float, spread: float, fan: str) -> None:
    """Mean and deviation of each kind of layer of a ResNet-50, with margins of many standard errors."""
    torch.manual_seed(0)
    module = build_composer_resnet("resnet50", init=init).module
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    gammas = torch.cat([m.weight for m in norms]).detach()
    assert gammas.mean().item() == pytest.approx(gamma, abs=0.01)
    assert gammas.std().item() == pytest.approx(spread, abs=0.01)
    assert all((m.bias == 0).all() for m in norms)
    for conv in (module.conv1, module.layer1[0].conv2, module.layer3[0].conv3, module.layer4[0].downsample[0]):
        fans = (conv.in_channels if fan == "in" else conv.out_channels) * conv.kernel_size[0] ** 2
        assert conv.weight.mean().item() == pytest.approx(0, abs=0.02 * math.sqrt(2 / fans))
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.03)
    uniform = math.sqrt(1 / (3 * 2048))  # torch's own, of U(-1, 1) / sqrt(fan in)
    expected = math.sqrt(2 / 2048) if init == "mosaic" else uniform
    assert module.fc.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert module.fc.bias.std().item() == pytest.approx(uniform, rel=0.1)


def test_mosaics_is_the_default() -> None:
    built = []
    for arguments in ({}, {"init": "mosaic"}):
        torch.manual_seed(0)
        built.append(build_composer_resnet("resnet18", num_classes=3, **arguments).state_dict())
    assert all(torch.equal(built[0][name], built[1][name]) for name in built[0])
    with pytest.raises(ConfigError, match="mosaic, torchvision"):
        build_composer_resnet("resnet18", init="xavier")


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
