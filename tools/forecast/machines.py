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

# Dense peaks in FLOP/s of bf16 matrix products that are added in fp32 (of fp16 on T4 and V100, which lack bf16): from
# NVIDIA's data sheets, half of the figures "with sparsity", and from the white papers of Ada and Blackwell for GeForce.
PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "H100": 989e12,  # SXM
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "A40": 149.7e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,  # SXM
    "V100 PCIe": 112e12,
    "RTX A6000": 154.8e12,
    "RTX A4000": 76.7e12,
    "RTX 5090": 209.5e12,
    "RTX 5080": 112.6e12,
    "RTX 4090": 165.2e12,
    "RTX 4080": 97.5e12,
}
_BRAND = r"(?:(?:NVIDIA|Tesla|GeForce) )*"
# What may follow a name; "MIG 1g.5gb" is a part of a GPU, "Laptop GPU" and "SUPER" are other chips.
_BUILD = r"(?: (?:SXM\d?|PCIe|HBM\de?|\d+GB))*"


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


def peak(device: str) -> float | None:
    """Return the peak of a device by its full name, such as NVIDIA A100-SXM4-80GB; None if unknown."""
    words = device.replace("-", " ")
    longest_first = sorted(PEAKS, key=len, reverse=True)  # H100 PCIe before H100
    is_named = (name for name in longest_first if re.fullmatch(_BRAND + re.escape(name) + _BUILD, words, re.IGNORECASE))
    return PEAKS.get(next(is_named, ""))


def machine_of(word: str, kinds: dict[str, float]) -> tuple[int, str]:
    """Return the number and the kind of GPUs in --scale, such as 8xA100; ConfigError if the kind is not in `kinds`."""
    match = re.fullmatch(r"([1-9]\d*)x(\S.*)", word)
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
