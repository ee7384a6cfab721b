"""What a device can compute at most, and what a training step asks of it."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from config import Run
from config.schema import Config
from training import build

# Dense peaks in FLOP/s of 16-bit matrix work, from the makers' data sheets; a part of the name is enough.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "A40": 150e12,
    "A10G": 70e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}


def flops_per_image(config: Config) -> float:
    """Floating-point operations of a training step per image: forward counted, backward twice as much."""
    model, size = build.model(config), config.train_dataset.crop_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.module.eval()(torch.zeros(1, 3, size, size))
    return 3.0 * counter.get_total_flops()


def device_name(run: Run) -> str:
    """What does the work."""
    return torch.cuda.get_device_name() if run.machine.device == "gpu" else f"CPU ({torch.get_num_threads()} threads)"


def peak_of(run: Run) -> float | None:
    """FLOP/s that the device's maker promises."""
    return next((value for part, value in PEAKS.items() if part in device_name(run)), None)
