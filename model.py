"""Build a torchvision ResNet or a user's model as a ComposerModel, with the published initialization and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torchvision
from composer.loss import binary_cross_entropy_with_logits
from composer.loss.utils import ensure_targets_one_hot
from composer.models import ComposerClassifier
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from common.errors import ConfigError
from common.suggest import listing
from config.schema import INITS, MEAN_BCE, MODELS
from recipes import networks, registry


def mean_binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, threshold: float | None = None
) -> torch.Tensor:
    """Return binary cross entropy averaged over batch and classes, as in timm; see model.target_threshold.

    Args:
        logits: [B, classes].
        targets: class indices [B], or probabilities [B, classes].
        threshold: above it, a target counts as 1, otherwise as 0; None leaves them as they are.
    """
    dense = ensure_targets_one_hot(logits, targets)
    if threshold is not None:
        dense = (dense > threshold).to(dense.dtype)
    return nn.functional.binary_cross_entropy_with_logits(logits, dense)


# All accept class indices or dense targets. As published, binary cross entropy is summed over classes and divided by
# the batch size (initially 7.907 for 1000 classes), not averaged over classes. Cross entropy is torch's: Composer's
# synchronizes with the GPU to check the targets' sum, and warns of smoothed targets that rounding leaves at 0.99999994.
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "binary_cross_entropy": binary_cross_entropy_with_logits,
    MEAN_BCE: mean_binary_cross_entropy,
}

Head = nn.Linear | nn.Conv2d


class MeanCrossEntropy(Metric):
    """Mean over all images; Composer's is a mean over batches, which overweights the images of a smaller last batch."""

    total: torch.Tensor
    images: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "images"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch: logits [B, classes] and class indices [B]."""
        self.total += nn.functional.cross_entropy(output.float(), target, reduction="sum")
        self.images += len(target)

    def compute(self) -> torch.Tensor:
        """Return the mean over the images added."""
        return self.total / self.images


class ResNetClassifier(ComposerClassifier):
    """A ComposerClassifier without training metrics, which training.recorder computes at lower cost."""

    def get_metrics(self, is_train: bool = False) -> dict[str, Metric]:
        """Return the evaluation metrics by name; none for training."""
        return {} if is_train else super().get_metrics(is_train)


def build_composer_resnet(
    model_name: str = "resnet50",
    loss_name: str = "cross_entropy",
    num_classes: int = 1000,
    init: str = "mosaic",
    target_threshold: float | None = None,
    image_size: int = 224,
) -> ComposerClassifier:
    """Build a ResNet, or another network, with top-1 and top-5 accuracy as metrics.

    Args:
        model_name: one of MODELS or another architecture of torchvision, or timm:NAME, never pretrained; or
            package.module:name, a user's class or function that takes num_classes and returns a torch.nn.Module.
        loss_name: one of LOSSES.
        num_classes: number of outputs; the model maps [B, 3, H, W] to logits [B, num_classes].
        init: one of INITS; ignored for others than MODELS, which keep their own. "mosaic": as in Mosaic's ResNet
            example (see `initialize`); "torchvision": as torchvision's constructor does (Kaiming-normal convolutions
            with fan out; BatchNorm weights 1, biases 0); "zero_last": the same, but the last BatchNorm of each block
            starts at 0, as timm's ResNets; "goyal": that with a classifier of N(0, 0.01), biases 0; "nvidia":
            torchvision's with fan in.
        target_threshold: of mean_binary_cross_entropy.
        image_size: side of the images in pixels, for networks that take images of one size, such as vit_b_16.

    Raises:
        ConfigError: the model, loss or initialization does not exist.
    """
    is_outside = registry.is_outside(model_name)
    if not is_outside and (problem := networks.problem(model_name)):
        raise ConfigError(f"model.name: {problem}")
    if loss_name not in LOSSES:
        raise ConfigError(f"model.loss_name: unknown value {loss_name!r}; choose {listing(LOSSES)}")
    if init not in INITS:
        raise ConfigError(f"model.init: unknown value {init!r}; choose {listing(INITS)}")
    if is_outside:
        module = registry.build("model", model_name, {"num_classes": num_classes})
    elif model_name not in MODELS:
        module = networks.build(model_name, num_classes, image_size)
    else:
        module = _resnet(model_name, num_classes, init)
    head = head_of(module, num_classes)
    layer = None if head is None else cast(Head, module.get_submodule(head))
    if layer is not None and layer.bias is not None:
        initialize_bias(layer, loss_name)
    elif loss_name == "binary_cross_entropy" and not is_outside:
        raise ConfigError(
            f"model.loss_name: {loss_name} starts from a bias of the last layer, and {model_name} has none there; type "
            "model.loss_name=cross_entropy"
        )
    return ResNetClassifier(
        module,
        num_classes=num_classes,
        val_metrics=evaluation_metrics(num_classes),
        loss_fn=partial(LOSSES[loss_name], threshold=target_threshold) if loss_name == MEAN_BCE else LOSSES[loss_name],
    )


def evaluation_metrics(num_classes: int) -> MetricCollection:
    """Return the metrics of an evaluation: cross entropy, top-1 and top-5 accuracy."""
    return MetricCollection(
        {
            "CrossEntropy": MeanCrossEntropy(),
            "MulticlassAccuracy": MulticlassAccuracy(num_classes, average="micro"),
            "MulticlassTop5Accuracy": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
        },
        # The two accuracies share no state, so the search for groups on the first batch would be wasted.
        compute_groups=False,
    )


def _resnet(name: str, num_classes: int, init: str) -> nn.Module:
    """Build one of MODELS with one of INITS."""
    module = getattr(torchvision.models, name)(
        num_classes=num_classes, zero_init_residual=init in ("zero_last", "goyal")
    )
    if init == "mosaic":
        initialize(module)
    elif init == "nvidia":
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif init == "goyal":
        nn.init.normal_(module.fc.weight, std=0.01)
        nn.init.zeros_(module.fc.bias)
    return module


def head_of(module: nn.Module, num_classes: int) -> str | None:
    """Return the name of the layer that gives the logits; None if none.

    It is the last linear one of num_classes outputs, or else the last convolution of 1x1 pixels, as in a SqueezeNet.
    """
    last: dict[type, str] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and layer.out_features == num_classes:
            last[nn.Linear] = name
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == num_classes and layer.kernel_size == (1, 1):
            last[nn.Conv2d] = name
    return last.get(nn.Linear, last.get(nn.Conv2d))


def initialize_bias(head: Head, loss_name: str) -> None:
    """With binary cross entropy, start every class at probability 1 / num_classes.

    So the first steps need not unlearn a prior of 1/2.
    """
    if loss_name == "binary_cross_entropy" and head.bias is not None:
        nn.init.constant_(head.bias, -math.log(len(head.bias)))


def initialize_head(head: Head, loss_name: str) -> None:
    """Initialize in place the head of a pretrained network: small weights, so that all classes start alike.

    Kaiming-normal weights, as of `initialize`, would start with large, wrong logits, whose gradients destroy features.
    """
    nn.init.normal_(head.weight, std=0.01)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    initialize_bias(head, loss_name)


def initialize(module: nn.Module) -> None:
    """Initialize in place as published by Mosaic.

    Convolution and linear weights are Kaiming-normal (fan in); BatchNorm weights are U(0, 1), its biases 0. Linear
    biases keep torch's initialization, and the last BatchNorm of a block is not zeroed.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
