"""A torchvision ResNet, or the user's model, as a ComposerModel: the published initialization, loss and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torchvision
from composer.loss import binary_cross_entropy_with_logits
from composer.models import ComposerClassifier
from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from common.errors import ConfigError
from config.schema import INITS, MODELS
from recipes import registry

# Both take class indices or dense targets. The binary cross entropy is summed over the classes and divided by the
# batch size, as published: 7.907 at the start with 1000 classes, not the mean over classes that textbooks use.
# The cross entropy is torch's own: Composer's warns that smoothed targets, which rounding leaves at 0.99999994 in all,
# "have less than 1 total probability", and to find out makes the host wait for the GPU.
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "binary_cross_entropy": binary_cross_entropy_with_logits,
}


class MeanCrossEntropy(Metric):
    """The mean over all images; Composer's is one over batches, in which those of a smaller last batch count more."""

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
        """The mean so far."""
        return self.total / self.images


class ResNetClassifier(ComposerClassifier):
    """A ComposerClassifier without train metrics: training.accuracy has them for less."""

    def get_metrics(self, is_train: bool = False) -> dict[str, Metric]:
        """The evaluation's metrics, by name; none for training."""
        return {} if is_train else super().get_metrics(is_train)


def build_composer_resnet(
    model_name: str = "resnet50", loss_name: str = "cross_entropy", num_classes: int = 1000, init: str = "mosaic"
) -> ComposerClassifier:
    """Build a ResNet with top-1 and top-5 accuracy as metrics.

    Args:
        model_name: one of MODELS; the torchvision architecture of that name, never pretrained. Or package.module:name,
            a class or function of the user's that makes a torch.nn.Module, given num_classes.
        loss_name: one of LOSSES.
        num_classes: length of the output; the model maps [B, 3, H, W] to logits [B, num_classes].
        init: one of INITS; a model of the user's keeps its own. "mosaic" is that of Mosaic's ResNet example (see
            `initialize`); "torchvision" leaves the model as torchvision's constructor makes it: Kaiming-normal
            convolutions (fan out), 1 and 0 for BatchNorm.

    Raises:
        ConfigError: for a model, a loss or an initialization that does not exist.
    """
    is_outside = registry.is_outside(model_name)
    if model_name not in MODELS and not is_outside:
        raise ConfigError(f"model.name: no model is called {model_name!r}; there are {', '.join(MODELS)}")
    if loss_name not in LOSSES:
        raise ConfigError(f"model.loss_name: no loss is called {loss_name!r}; there are {', '.join(LOSSES)}")
    if init not in INITS:
        raise ConfigError(f"model.init: no initialization is called {init!r}; there are {', '.join(INITS)}")
    if is_outside:
        module = registry.build("model", model_name, {"num_classes": num_classes})
    else:
        module = getattr(torchvision.models, model_name)(num_classes=num_classes)
        if init == "mosaic":
            initialize(module)
    heads = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.out_features == num_classes]
    if loss_name == "binary_cross_entropy" and heads and heads[-1].bias is not None:
        # Every class starts with probability 1 / num_classes, so the first steps do not unlearn a prior of 1/2.
        nn.init.constant_(heads[-1].bias, -math.log(num_classes))
    return ResNetClassifier(
        module,
        num_classes=num_classes,
        val_metrics=MetricCollection(
            {
                "CrossEntropy": MeanCrossEntropy(),
                "MulticlassAccuracy": MulticlassAccuracy(num_classes, average="micro"),
                "MulticlassTop5Accuracy": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            },
            # The two accuracies share no state; grouping them would look for sharing on the first batch.
            compute_groups=False,
        ),
        loss_fn=LOSSES[loss_name],
    )


def initialize(module: nn.Module) -> None:
    """Kaiming-normal weights (fan in) for convolutions and linear layers, U(0, 1) and 0 for BatchNorm, in place.

    The linear bias stays as torch makes it, and the last BatchNorm of a block is not zeroed: so it was published.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
