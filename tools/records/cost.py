"""The cost of a run: wall clock, with evaluations and restarts, times the price of its machines."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from launch.machines import PRICES, Price, read_prices
from tools.records.groups import Spread, spread
from tools.records.reading import Record
from tools.records.trust import is_count

HOURS_PER_MONTH = 730  # a twelfth of a year


@dataclass(frozen=True)
class Prices:
    """Prices of machines, from the list or as given."""

    per_hour: float | None = None  # dollars for all machines of a run together; None: the list's price
    spot: bool = False  # the list's spot prices
    storage_gb: float = 0.0  # of the disk that holds the data, rented while the run lasts
    storage_price: float = 0.0  # dollars per GB and month
    file: Path = PRICES

    @cached_property
    def listed(self) -> dict[str, Any]:
        """The list of prices; DataError if the file is not one."""
        return read_prices(self.file)

    @property
    def _kind(self) -> str:
        return "spot" if self.spot else "on_demand"

    def of(self, record: Record) -> Price:
        """Return the cost of a run, finished or not."""
        hour = self._hour(record)
        if hour.dollars is None:
            return hour
        if record.total_seconds is None:
            return Price(None, "its wall clock was not recorded")
        storage = self.storage_gb * self.storage_price / HOURS_PER_MONTH
        return Price(record.total_seconds / 3600 * (hour.dollars + storage), hour.why)

    def spread_of(self, records: Iterable[Record]) -> Spread | None:
        """Return the spread of the known costs; None if there are none."""
        return spread(self.of(record).dollars for record in records)

    def _hour(self, record: Record) -> Price:
        """Return the price of an hour of a run's machines."""
        if self.per_hour is not None:
            return Price(self.per_hour, f"${self.per_hour:g}/h as given")
        nodes, ranks = (record.environment.get(key, 1) for key in ("nodes", "world_size"))
        per_node = ranks // nodes if is_count(ranks) and is_count(nodes) else 0
        device, kind = str(record.environment.get("device", "")), self._kind
        fitting = [m for m in self.listed["machines"] if m["count"] == per_node and re.search(m["gpu"], device)]
        if not fitting:
            return Price(None, f"no price for {record.hardware} in {self.file.name}: add one, or give --price")
        machine, called = fitting[0], kind.replace("_", "-")
        if machine[kind] is None:
            return Price(None, f"no {called} price for {machine['name']} in {self.file.name}: give --price")
        times = f"{nodes} x " if nodes > 1 else ""
        return Price(nodes * machine[kind], f"{times}{machine['name']} at ${machine[kind]:g}/h {called}")

    @property
    def basis(self) -> str:
        """The basis of the costs, as a sentence."""
        storage = f", and {self.storage_gb:g} GB at ${self.storage_price:g} per GB and month" if self.storage_gb else ""
        if self.per_hour is not None:
            return f"Cost is the wall clock at ${self.per_hour:g} per hour as given{storage}."
        return (
            f"Cost is the wall clock at the {self._kind.replace('_', '-')} prices of launch/{self.file.name} as of "
            f"{self.listed['read'][self._kind]}{storage}. That file says where they are from: check them before you "
            "rely on them."
        )
