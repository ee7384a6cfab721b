"""What a run cost: its wall clock, evaluation and restarts included, times the price of its machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from common.errors import DataError
from config.read import ROOT
from tools.records.reading import Record
from tools.records.trust import is_count

PRICES = ROOT / "launch/prices.yaml"
HOURS_PER_MONTH = 730  # a twelfth of a year
UNKNOWN_TIME = "its wall clock was not recorded"


@dataclass(frozen=True)
class Cost:
    """What one run cost, in US dollars; None with the reason where that cannot be said."""

    dollars: float | None
    why: str = ""


@dataclass(frozen=True)
class Prices:
    """How wall clock becomes money.

    Attributes:
        per_hour: dollars per hour of all the machines of a run together, instead of the list's price; None: the list.
        spot: take the list's spot prices.
        storage_gb: size of the disk that holds the data, rented for as long as the run takes.
        storage_price: dollars per GB and month.
        file: the list.
    """

    per_hour: float | None = None
    spot: bool = False
    storage_gb: float = 0.0
    storage_price: float = 0.0
    file: Path = PRICES

    @cached_property
    def listed(self) -> dict[str, Any]:
        """The list.

        Raises:
            DataError: it is not one.
        """
        try:
            content = yaml.safe_load(self.file.read_text())
            for machine in content["machines"]:
                re.compile(machine["gpu"])
                machine["name"], machine["count"], machine["on_demand"], machine["spot"]
            content["read"]["on_demand"], content["read"]["spot"]
        except (OSError, yaml.YAMLError, KeyError, TypeError, re.error) as error:
            sentence = " ".join(str(error).split())
            raise DataError(f"{self.file}: is no list of prices ({type(error).__name__}: {sentence})") from error
        return content

    @property
    def _kind(self) -> str:
        return "spot" if self.spot else "on_demand"

    @property
    def storage_per_hour(self) -> float:
        """Dollars per hour for the disk."""
        return self.storage_gb * self.storage_price / HOURS_PER_MONTH

    def of(self, record: Record) -> Cost:
        """What a run cost, as far as is known: also one that did not finish was paid for."""
        per_hour, why = self.rate(record)
        seconds = record.total_seconds
        if per_hour is None or seconds is None:
            return Cost(None, why if per_hour is None else UNKNOWN_TIME)
        return Cost(seconds / 3600 * (per_hour + self.storage_per_hour), why)

    def rate(self, record: Record) -> tuple[float | None, str]:
        """Dollars per hour of a run's machines together and where that is from, or None and why not."""
        if self.per_hour is not None:
            return self.per_hour, f"${self.per_hour:g}/h as given"
        nodes, ranks = (record.environment.get(key, 1) for key in ("nodes", "world_size"))
        per_node = ranks // nodes if is_count(ranks) and is_count(nodes) else 0
        device, kind = str(record.environment.get("device", "")), self._kind
        fitting = [m for m in self.listed["machines"] if m["count"] == per_node and re.search(m["gpu"], device)]
        if not fitting:
            return None, f"no price for {record.hardware} in {self.file.name}: add one, or give --price"
        machine = fitting[0]
        if machine[kind] is None:
            return None, f"no {kind.replace('_', '-')} price for {machine['name']} in {self.file.name}: give --price"
        times = f"{nodes} x " if nodes > 1 else ""
        return nodes * machine[kind], f"{times}{machine['name']} at ${machine[kind]:g}/h {kind.replace('_', '-')}"

    @property
    def basis(self) -> str:
        """What the costs rest on, in a sentence."""
        storage = f", and {self.storage_gb:g} GB at ${self.storage_price:g} per GB and month" if self.storage_gb else ""
        if self.per_hour is not None:
            return f"Cost is the wall clock at ${self.per_hour:g} per hour as given{storage}."
        return (
            f"Cost is the wall clock at the {self._kind.replace('_', '-')} prices of launch/{self.file.name} as of "
            f"{self.listed['read'][self._kind]}{storage}. That file says where they are from: check them before you "
            "rely on them."
        )
