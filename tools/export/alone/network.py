"""The network whose weights lie next to this file, NAME.safetensors or NAME.pth. Needs torch and torchvision.

from network import load
network = load("NAME.safetensors")  # maps normalized images, as preprocess.py makes them, to logits
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

ARCHITECTURE = "resnet50"
CLASSES = 1000
# Convolutions with a blur -> whether it comes before the convolution; max-pools with a blur.
CONVOLUTIONS: dict[str, bool] = {}
POOLS: list[str] = []


class BlurConv2d(nn.Module):
    """A strided convolution with a blur before it, or between it and its stride (Zhang 2019)."""

    blur_filter: torch.Tensor

    def __init__(self, conv: nn.Conv2d, blur_first: bool) -> None:
        super().__init__()
        self.conv, self.blur_first = conv, blur_first
        self.stride = (1, 1) if blur_first else conv.stride
        if not blur_first:
            conv.stride = (1, 1)
        self.register_buffer("blur_filter", torch.zeros(conv.in_channels if blur_first else conv.out_channels, 1, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C_in, H, W] to [B, C_out, H', W']."""
        return self.conv(self.blur(images)) if self.blur_first else self.blur(self.conv(images))

    def blur(self, images: torch.Tensor) -> torch.Tensor:
        """Blur each channel."""
        return F.conv2d(images, self.blur_filter, None, self.stride, 1, 1, len(self.blur_filter))


class BlurMaxPool2d(nn.Module):
    """A max-pool of stride 1 followed by a strided blur."""

    filt2d: torch.Tensor

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool, self.stride = nn.MaxPool2d(pool.kernel_size, 1, pool.padding, pool.dilation), pool.stride
        self.register_buffer("filt2d", torch.zeros(1, 1, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to [B, C, H', W']."""
        peaks = self.pool(images)
        channels = peaks.shape[1]
        return F.conv2d(peaks, self.filt2d.repeat(channels, 1, 1, 1), None, self.stride, 1, 1, channels)


def build() -> nn.Module:
    """Return the network, untrained."""
    network = getattr(torchvision.models, ARCHITECTURE)(num_classes=CLASSES)
    for name in [*CONVOLUTIONS, *POOLS]:
        parent, _, child = name.rpartition(".")
        layer = network.get_submodule(name)
        blurred = BlurMaxPool2d(layer) if name in POOLS else BlurConv2d(layer, CONVOLUTIONS[name])
        setattr(network.get_submodule(parent), child, blurred)
    return network


def load(file: str) -> nn.Module:
    """Return the network with the weights of a file, ready to classify."""
    if file.endswith(".safetensors"):
        from safetensors.torch import load_file

        weights = load_file(file)
    else:
        weights = torch.load(file, weights_only=True, map_location="cpu")
    network = build()
    network.load_state_dict(weights)
    return network.eval()
