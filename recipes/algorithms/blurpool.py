"""BlurPool: anti-aliased strided convolutions and max-pools, without graph breaks under torch.compile."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from composer.algorithms.blurpool import BlurConv2d as StockBlurConv2d
from composer.algorithms.blurpool import BlurMaxPool2d as StockBlurMaxPool2d
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor, nn

from recipes.algorithms._base import Surgery, T

_BLURRED = (StockBlurConv2d, StockBlurMaxPool2d)
_BUFFERS = (".blur_filter", ".filt2d")
_WRAPPED = re.compile(r"\.conv\.(weight|bias)$")


class BlurConv2d(StockBlurConv2d):
    """A strided convolution with a blur before it (cheap), or between it and its stride (as in the paper).

    Has Composer's names (`conv.weight`, `blur_filter`), so that checkpoints are interchangeable. It wraps the original
    convolution, which preserves parameters, optimizer state and memory format.
    """

    def __init__(self, conv: nn.Conv2d, blur_first: bool = True) -> None:
        nn.Module.__init__(self)
        self.blur_first = blur_first
        self.blur_stride = (1, 1) if blur_first else tuple(conv.stride)
        self.blur_nchannels = conv.in_channels if blur_first else conv.out_channels
        if not blur_first:
            conv.stride = (1, 1)
        conv._already_blurpooled = True  # type: ignore[assignment]  # stock Composer checks this attribute
        self.conv = conv
        row = torch.tensor([1.0, 2.0, 1.0], device=conv.weight.device)
        self.register_buffer("blur_filter", (torch.outer(row, row) / 16).repeat(self.blur_nchannels, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        return self.conv(self._blur(input)) if self.blur_first else self._blur(self.conv(input))

    def _blur(self, x: Tensor) -> Tensor:
        # A constant padding, because stock computes it with a tensor's .item(), which breaks the graph at every layer.
        return F.conv2d(x, self.blur_filter, None, self.blur_stride, (1, 1), (1, 1), self.blur_nchannels)


class BlurMaxPool2d(StockBlurMaxPool2d):
    """A max-pool of stride 1 followed by a strided blur; has Composer's key (`filt2d`)."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__(pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        peaks = F.max_pool2d(input, self.kernel_size, 1, self.padding, self.dilation, self.ceil_mode)
        channels = peaks.shape[1]
        return F.conv2d(peaks, self.filt2d.repeat(channels, 1, 1, 1), None, self.stride, (1, 1), (1, 1), channels)


class BlurPool(Surgery):
    """Adds blurs where a ResNet subsamples (Zhang 2019, http://proceedings.mlr.press/v97/zhang19a.html).

    Outputs equal those of Composer's BlurPool, but torch.compile has 0 graph breaks on a ResNet-50 instead of 28. On a
    ResNet-50, 1 max-pool and 6 convolutions are replaced. A second application has no effect.

    Args:
        blur_first: blur before the convolution rather than after it.
        min_channels: convolutions with fewer input channels stay (the stem, which sees 3).
    """

    events = (Event.INIT,)
    BOUNDS = {"min_channels": "at least 1"}
    RULES = {
        "replace_convs or replace_maxpools": (
            "replace_convs and replace_maxpools are both false; at least one must be true"
        )
    }

    def __init__(
        self,
        replace_convs: bool = True,
        replace_maxpools: bool = True,
        blur_first: bool = True,
        min_channels: int = 16,
    ) -> None:
        self.replace_convs = replace_convs
        self.replace_maxpools = replace_maxpools
        self.blur_first = blur_first
        self.min_channels = min_channels

    @classmethod
    def undone(cls, tensors: Mapping[str, T]) -> Mapping[str, T]:
        """Drop the filters, and name each convolution as before it was wrapped."""
        return {_WRAPPED.sub(r".\1", name): value for name, value in tensors.items() if not name.endswith(_BUFFERS)}

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Replace the layers and log their numbers."""
        made: dict[nn.Module, nn.Module] = {}
        self._replace(state.model, made)
        device = next(state.model.parameters()).device  # Composer has moved the model there already
        for layer in made.values():
            layer.to(device)
        for name, kind in (("blurconv", StockBlurConv2d), ("blurpool", StockBlurMaxPool2d)):
            count = sum(isinstance(module, kind) for module in state.model.modules())
            logger.log_hyperparameters({f"blurpool/num_{name}_layers": count})

    def _replace(self, module: nn.Module, made: dict[nn.Module, nn.Module]) -> None:
        """Replace layers below `module`; a shared layer gets one shared replacement."""
        for name, child in list(module._modules.items()):
            if child is None or isinstance(child, _BLURRED):
                continue
            if child not in made:
                if isinstance(child, nn.MaxPool2d) and self.replace_maxpools:
                    made[child] = BlurMaxPool2d(child)
                elif isinstance(child, nn.Conv2d) and self._is_due(child):
                    made[child] = BlurConv2d(child, self.blur_first)
            if child in made:
                setattr(module, name, made[child])
            else:
                self._replace(child, made)

    def _is_due(self, conv: nn.Conv2d) -> bool:
        return self.replace_convs and max(conv.stride) > 1 and conv.in_channels >= self.min_channels
