"""Small files of weights, and networks that start from them."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from composer.models import ComposerClassifier
from torch import Tensor, nn

from config import Run
from config.schema import Config, Model
from model import build_composer_resnet
from training.weights import load, read


def resnet18(num_classes: int = 3) -> dict[str, Tensor]:
    """Return the state_dict of a fresh ResNet-18."""
    return torchvision.models.resnet18(num_classes=num_classes).state_dict()


def run_with(file: object, **model: Any) -> Run:
    """Return a run of three classes that starts from a file."""
    return Run(Config(model=Model(**{"name": "resnet18", "num_classes": 3, "weights": str(file), **model})), {})


def start(run: Run, classes: list[str] | None = None, algorithms: tuple = ()) -> tuple[ComposerClassifier, Any]:
    """Build a run's model and load its weights; return both."""
    values = run.config.model
    model = build_composer_resnet(values.name, values.loss_name, values.classes)
    return model, load(read(values), run, model, classes, algorithms)


def equal(network: nn.Module, tensors: dict[str, Tensor], but: str = "-") -> bool:
    """Whether a network holds these tensors, but for names that start with `but`."""
    held = network.state_dict()
    return all(torch.equal(held[name], tensor) for name, tensor in tensors.items() if not name.startswith(but))


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


class Own(nn.Module):
    """A user's network, whose head has another name and follows another linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.hidden = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
        self.classifier = nn.Linear(4, num_classes)


class Convolutional(nn.Module):
    """A user's network whose logits come from a convolution of 3x3 pixels, so that it has no head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, num_classes, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, 3, H, W] to logits [B, num_classes]."""
        return self.last(images).mean(dim=(2, 3))
