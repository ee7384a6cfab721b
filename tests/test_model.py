"""The model's initialization, loss and metrics match the published ones."""

import math

import pytest
import torch
import torchvision
from composer.loss import soft_cross_entropy
from composer.metrics import CrossEntropy
from torch import nn

from common.errors import ConfigError
from config import load
from model import build_composer_resnet


def test_binary_cross_entropy_is_summed_over_classes() -> None:
    """7.907 before training with 1000 classes: summed over classes, averaged over the batch."""
    torch.manual_seed(0)
    model = build_composer_resnet("resnet18", "binary_cross_entropy", 1000)
    logits = torch.full((4, 1000), -math.log(1000))
    loss = model.loss(logits, (None, torch.tensor([0, 1, 2, 3])))
    assert loss.item() == pytest.approx(7.907, abs=2e-3)


@pytest.mark.slow  # imports timm
@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mean_binary_cross_entropy_is_timms(threshold: float | None, smoothing: float) -> None:
    """Of labels, smoothed labels and mixed targets; no bias is initialized for it, so it starts at ln 2."""
    from timm.loss import BinaryCrossEntropy

    model = build_composer_resnet("resnet18", "mean_binary_cross_entropy", 5, "zero_last", threshold)
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(12, 5, generator=generator), torch.arange(12) % 5
    mixed = torch.rand(12, 5, generator=generator).softmax(1)
    smoothed = nn.functional.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
    for theirs, ours in ((labels, smoothed), (labels, labels), (mixed, mixed)):
        if theirs is labels and ours is labels and smoothing:
            continue  # timm smooths labels in its loss, we smooth them before
        expected = BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold)(logits, theirs)
        torch.testing.assert_close(model.loss(logits, (None, ours)), expected)
    assert model.loss(torch.zeros(2, 5), (None, labels[:2])).item() == pytest.approx(math.log(2))
    assert model.module.fc.bias.abs().max() <= 1 / math.sqrt(512)


def test_cross_entropy_of_smoothed_targets() -> None:
    """Composer's value, without its warning about targets whose sum is below 1 only by rounding."""
    labels = torch.arange(12) % 3
    smoothed = torch.nn.functional.one_hot(labels, 3) * 0.9 + 0.1 / 3
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    model = build_composer_resnet("resnet18", "cross_entropy", 3)
    with pytest.warns(UserWarning, match="less than 1 total probability"):
        stock = soft_cross_entropy(logits, smoothed)
    torch.testing.assert_close(model.loss(logits, (None, smoothed)), stock)
    assert torch.equal(model.loss(logits, (None, labels)), soft_cross_entropy(logits, labels))


def test_every_image_has_the_same_weight_in_the_loss() -> None:
    """Even in a last batch of one image, to which Composer's metric gives the weight of a whole batch."""
    metric = build_composer_resnet("resnet18", num_classes=5).get_metrics()["CrossEntropy"]
    output, target = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    stock = CrossEntropy()
    for part in (slice(0, 8), slice(8, 9)):
        metric.update(output[part], target[part])
        stock.update(output[part], target[part])
    exact = torch.nn.functional.cross_entropy(output, target)
    assert float(metric.compute()) == pytest.approx(float(exact), rel=1e-6)
    assert float(stock.compute()) != pytest.approx(float(exact), rel=1e-2)


def test_initialization() -> None:
    torch.manual_seed(0)
    model = build_composer_resnet("resnet18", "binary_cross_entropy", 50).module
    gammas = torch.cat([m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert 0.48 < gammas.mean().item() < 0.52, "BatchNorm weights are uniform in [0, 1]"
    assert gammas.min() >= 0 and gammas.max() <= 1 and gammas.std().item() > 0.27
    assert torch.allclose(model.fc.bias, torch.tensor(-math.log(50)))
    weight = model.layer2[0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03), "Kaiming normal, fan in"


# Standard deviations of the initial weights. Kaiming normal: sqrt(2 / fan), fan in (Mosaic, NVIDIA) or out
# (torchvision); torchvision's classifier is uniform in +-1 / sqrt(in_features).
STARTS = {
    "mosaic": {
        "conv1": math.sqrt(2 / (3 * 49)),
        "layer1.0.conv3": math.sqrt(2 / 64),
        "layer3.0.conv2": math.sqrt(2 / (256 * 9)),
        "layer4.0.downsample.0": math.sqrt(2 / 1024),
        "fc": math.sqrt(2 / 2048),
    },
    "torchvision": {
        "conv1": math.sqrt(2 / (64 * 49)),
        "layer1.0.conv3": math.sqrt(2 / 256),
        "layer3.0.conv2": math.sqrt(2 / (256 * 9)),
        "layer4.0.downsample.0": math.sqrt(2 / 2048),
        "fc": 1 / math.sqrt(3 * 2048),
    },
}
STARTS["zero_last"] = STARTS["torchvision"]
STARTS["goyal"] = {**STARTS["torchvision"], "fc": 0.01}
STARTS["nvidia"] = {**STARTS["mosaic"], "fc": STARTS["torchvision"]["fc"]}


@pytest.mark.parametrize("init", STARTS)
def test_statistics_of_an_initialization(init: str) -> None:
    """Drawn with one seed; the smallest layer has 9,408 weights, so that 5 % are 7 standard errors."""
    torch.manual_seed(0)
    model = build_composer_resnet("resnet50", "cross_entropy", 1000, init=init).module
    layers = dict(model.named_modules())
    found = {name: layers[name].weight.std().item() for name in STARTS[init]}
    assert found == pytest.approx(STARTS[init], rel=0.05)
    assert max(abs(layers[name].weight.mean().item()) for name in found) < 0.005
    gammas = torch.cat([m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    betas = torch.cat([m.bias for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert not betas.any()
    last = torch.cat([block.bn3.weight for name, block in layers.items() if hasattr(block, "bn3")])
    assert last.numel() == 15_104
    assert bool(model.fc.bias.any()) == (init != "goyal")
    if init in ("torchvision", "nvidia"):
        assert gammas.eq(1).all()
    elif init in ("zero_last", "goyal"):
        assert not last.any() and gammas.eq(1).sum() == len(gammas) - len(last)
    else:
        assert gammas.mean().item() == pytest.approx(0.5, abs=0.02)
        assert gammas.std().item() == pytest.approx(math.sqrt(1 / 12), abs=0.02)


@pytest.mark.parametrize(("init", "zeroed"), [("torchvision", False), ("zero_last", True)])
def test_torchvision_initialization_equals_torchvisions(init: str, zeroed: bool) -> None:
    """Bitwise, with the same seed: the recipes from torchvision start from it."""
    torch.manual_seed(3)
    ours = build_composer_resnet("resnet18", num_classes=10, init=init).module.state_dict()
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(num_classes=10, zero_init_residual=zeroed).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow  # imports timm
def test_zero_last_starts_as_timms_resnets() -> None:
    import timm

    torch.manual_seed(0)
    theirs, ours = timm.create_model("resnet50"), build_composer_resnet(init="zero_last").module
    theirs_by_name, ours_by_name = (dict(model.requires_grad_(False).named_parameters()) for model in (theirs, ours))
    assert theirs_by_name.keys() == ours_by_name.keys()
    for name, weight in theirs_by_name.items():
        (mean, std), (mean_2, std_2) = ((w.mean(), w.std(correction=0)) for w in (ours_by_name[name], weight))
        assert mean.item() == pytest.approx(mean_2.item(), abs=0.02) and std.item() == pytest.approx(
            std_2.item(), rel=0.08
        )


def test_unknown_initialization() -> None:
    with pytest.raises(ConfigError, match="'zero'; choose mosaic, torchvision, zero_last, goyal or nvidia"):
        build_composer_resnet("resnet18", init="zero")
    with pytest.raises(ConfigError, match=r"model\.init: unknown value 'torchvison'; did you mean torchvision\?"):
        load(["yamls/digits.yaml", "model.init=torchvison", "dry_run=true"])


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
    assert set(model.get_metrics(is_train=False)) >= {"CrossEntropy", "MulticlassAccuracy", "MulticlassTop5Accuracy"}
    assert model.get_metrics(is_train=True) == {}, "a callback computes the training accuracy"
