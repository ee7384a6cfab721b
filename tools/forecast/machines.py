"""The device that a run computes on, and the operations of a training step."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from config import Run
from config.schema import Config
from launch.machines import peak
from training import build


def flops_per_image(config: Config) -> float:
    """Return the floating-point operations of a training step per image: forward counted, backward twice as much."""
    model, size = build.model(config), config.train_dataset.crop_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.module.eval()(torch.zeros(1, 3, size, size))
    return 3.0 * counter.get_total_flops()


def device_name(run: Run) -> str:
    """Return the name of the device that a run computes on."""
    return torch.cuda.get_device_name() if run.machine.device == "gpu" else f"CPU ({torch.get_num_threads()} threads)"


def peak_of(run: Run) -> float | None:
    """Return the FLOP/s that the device's maker promises; None if unknown."""
    return peak(device_name(run))
