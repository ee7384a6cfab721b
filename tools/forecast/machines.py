"""Machines: their prices, their peak speed, and the operations of a training step."""

import math
import re
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.errors import ConfigError
from common.suggest import did_you_mean, listing
from config import Run
from config.schema import Config
from tools.records.cost import PRICES, Price, Prices
from training import build

# Dense peaks in FLOP/s of 16-bit matrix work, from the makers' data sheets, by a part of the device's name.
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
    return next((value for part, value in PEAKS.items() if part in device_name(run)), None)


def machine_of(word: str, kinds: dict[str, float]) -> tuple[int, str]:
    """Return the number and the kind of GPUs in --scale, such as 8xA100; ConfigError if the kind is not in `kinds`."""
    match = re.fullmatch(r"([1-9]\d*)x(\w+)", word)
    if not match:
        raise ConfigError(f"--scale: {word} given, but it must be a number and a kind of GPU, as in --scale 8xA100")
    named = {kind.upper(): kind for kind in kinds}
    if match[2].upper() not in named:
        raise ConfigError(f"--scale: {match[2]} given, but it must be {listing(kinds)}{did_you_mean(match[2], kinds)}")
    return int(match[1]), named[match[2].upper()]


def price(given: float | None, name: str | None, device: str, count: int, file: Path = PRICES) -> Price:
    """Return the price of an hour: --price as given, that of the named --machine, or of the first with these devices.

    `device` is the devices' name, or a part of it such as A100.
    """
    if given is not None:
        if not 0 < given < math.inf:
            raise ConfigError(f"--price: {given:g} given, but it must be more than 0 dollars, as in --price 3.2")
        return Price(given, f"${given:g} an hour, as given")
    listed = Prices(file=file).listed if file.exists() else {"machines": []}
    machines = {machine["name"]: machine for machine in listed["machines"]}
    if name is not None and name not in machines:
        known = f"there is no {file.parent.name}/{file.name}"
        if machines:
            known = f"{file.name} has {listing(machines)}{did_you_mean(name, machines)}"
        raise ConfigError(f"--machine: {name} given, but {known}; or give --price")
    alike = [m for m in machines.values() if re.search(m["gpu"], device) or device in m["gpu"]]
    machine = machines[name] if name else next((m for m in alike if m["count"] == count), None)
    if machine is None:
        return Price(None, f"no price is known for {count}x {device}; give --price")
    hourly, read = machine["on_demand"], listed["read"]["on_demand"]
    if hourly is None:
        return Price(None, f"{machine['name']} has no price in {file.name}; give --price")
    return Price(hourly, f"{machine['name']}, ${hourly:g} an hour on demand (read {read})")
