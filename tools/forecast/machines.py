"""What a machine costs, and how much faster than this one it should be."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.suggest import did_you_mean, listing
from tools.records.cost import PRICES, Prices


@dataclass(frozen=True)
class Price:
    """Dollars per hour of all devices of a run together, and where that is from; None with the reason."""

    per_hour: float | None
    note: str


@dataclass(frozen=True)
class Machine:
    """So many devices of a kind, as in 8xA100."""

    count: int
    kind: str

    def __str__(self) -> str:
        return f"{self.count}x {self.kind}"


def machine_of(word: str, kinds: dict[str, float]) -> Machine:
    """The machine that a word such as 8xA100 means.

    Args:
        word: as given to --scale.
        kinds: those whose speed is known.

    Raises:
        ConfigError: it means none.
    """
    match = re.fullmatch(r"([1-9]\d*)x(\w+)", word)
    if not match:
        raise ConfigError(f"--scale: {word} given, but it is a number and a kind of GPU, as in --scale 8xA100")
    named = {kind.upper(): kind for kind in kinds}
    if match[2].upper() not in named:
        raise ConfigError(f"--scale: {match[2]} given, but it must be {listing(kinds)}{did_you_mean(match[2], kinds)}")
    return Machine(int(match[1]), named[match[2].upper()])


def listed(file: Path = PRICES) -> list[dict[str, Any]]:
    """The machines of the list of prices: name, gpu (a regular expression), count, on_demand; empty without a list.

    Raises:
        DataError: it is no such list.
    """
    if not file.exists():
        return []
    content = Prices(file=file).listed
    return [
        {
            **machine,
            "gpu": re.compile(machine["gpu"]),
            "read": content["read"]["on_demand"],
            "price": machine["on_demand"],
        }
        for machine in content["machines"]
    ]


def price(given: float | None, name: str | None, device: str, count: int, file: Path = PRICES) -> Price:
    """What an hour costs: as given, of the machine that is named, or of the first one with these devices.

    Args:
        given: --price, in dollars.
        name: --machine.
        device: the devices' name, or a part of it such as A100.
        count: how many there are.
        file: the list of prices.

    Raises:
        ConfigError: the price is none, or no machine has that name.
    """
    if given is not None:
        if not 0 < given < math.inf:
            raise ConfigError(f"--price: {given:g} given, but an hour costs more than 0 dollars, as in --price 3.2")
        return Price(given, f"${given:g} an hour, as given")
    machines = listed(file)
    if name is not None:
        names = [machine["name"] for machine in machines]
        if name not in names:
            known = f"{file.name} has {listing(names)}{did_you_mean(name, names)}"
            missing = f"there is no {file.parent.name}/{file.name}"
            raise ConfigError(f"--machine: {name} given, but {known if names else missing}; or give --price")
        fitting = [machines[names.index(name)]]
    else:
        alike = [m for m in machines if m["gpu"].search(device) or device in m["gpu"].pattern]
        fitting = [m for m in alike if m["count"] == count]
    if not fitting:
        return Price(None, f"no price is known for {count}x {device}; give --price")
    machine = fitting[0]
    if machine["price"] is None:
        return Price(None, f"{machine['name']} has no price in {file.name}; give --price")
    return Price(
        machine["price"], f"{machine['name']}, ${machine['price']:g} an hour on demand (read {machine['read']})"
    )
