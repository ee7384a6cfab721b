"""BatchNorms that stay in evaluation mode: their running statistics neither change nor depend on the batch."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenBatchNorm(_BatchNorm):
    """Base of BatchNorms whose training mode cannot be set, so that no caller of model.train() thaws them."""

    def train(self, mode: bool = True) -> Any:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)


def freeze(layer: _BatchNorm) -> None:
    """Freeze a BatchNorm in place: its parameters and statistics; its names, tensors and hooks stay the same."""
    kind = type(layer)
    if not is_frozen(layer):
        layer.__class__ = _KINDS.setdefault(kind, type(f"Frozen{kind.__name__}", (FrozenBatchNorm, kind), {}))
    layer.eval()
    layer.requires_grad_(False)


_KINDS: dict[type, type] = {}
"""A class -> its frozen one; one for each, because torch.compile compiles each class anew."""


def frozen_buffers(model: nn.Module) -> set[int]:
    """Return the ids of the statistics of a model's frozen BatchNorms."""
    return {id(buffer) for module in model.modules() if is_frozen(module) for buffer in module.buffers()}


def is_frozen(module: nn.Module) -> bool:
    """Whether a module is a frozen BatchNorm."""
    return isinstance(module, FrozenBatchNorm)
