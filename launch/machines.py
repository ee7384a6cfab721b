"""GPUs and the machines that are rented with them: peak speeds and prices. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import ConfigError, DataError
from common.suggest import did_you_mean, listing

PRICES = Path(__file__).parent / "prices.yaml"

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


@dataclass(frozen=True)
class Price:
    """US dollars of an hour or of a run, and their source; None, with the reason, if unknown."""

    dollars: float | None
    why: str


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


def read_prices(file: Path = PRICES) -> dict[str, Any]:
    """Return the list of prices; DataError if the file is not one."""
    try:
        content = yaml.safe_load(file.read_text())
        for machine in content["machines"]:
            re.compile(machine["gpu"])
            machine["name"], machine["count"], machine["on_demand"], machine["spot"]
        content["read"]["on_demand"], content["read"]["spot"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, re.error) as error:
        sentence = " ".join(str(error).split())
        raise DataError(f"{file}: is not a list of prices ({type(error).__name__}: {sentence})") from error
    return content


def price(given: float | None, name: str | None, device: str, count: int, file: Path = PRICES) -> Price:
    """Return the price of an hour: --price as given, that of the named --machine, or of the first with these devices.

    `device` is the devices' name, or a part of it such as A100.
    """
    if given is not None:
        if not 0 < given < math.inf:
            raise ConfigError(f"--price: {given:g} given, but it must be more than 0 dollars, as in --price 3.2")
        return Price(given, f"${given:g} an hour, as given")
    listed = read_prices(file) if file.exists() else {"machines": []}
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
