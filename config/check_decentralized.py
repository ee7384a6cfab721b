"""Whether decentralized training has a topology that exists, and nothing beside it that its ranks cannot bear."""

from __future__ import annotations

from common.suggest import did_you_mean, listing
from config.report import Report
from config.schema import Config
from recipes.topologies import TOPOLOGIES

REFUSED = {
    "sam": "computes its second gradient at another point than the first, the weights being mixed between",
    "swa": "keeps an average of each rank's own weights, and ends with rank 0's",
}
"""Algorithms that do not go with it, and what they do. Schedule-free optimizers: config/check_schedule_free.py."""


def check_decentralized(config: Config, algorithms: dict[str, dict], report: Report) -> None:
    """The algorithm decentralized, its neighbours in the list, and the interval of the optimizer made for it."""
    interval = config.optimizer.get("accum_iter")
    if isinstance(interval, int) and interval < 1:
        report.add("optimizer.accum_iter", f"{interval} given, but it must be at least 1; published: 8 for 32 ranks")
    if "decentralized" not in algorithms:
        return
    topology = algorithms["decentralized"].get("topology")
    if isinstance(topology, str) and topology not in TOPOLOGIES:
        report.add(
            "algorithms.decentralized.topology",
            f"there is no {topology!r}{did_you_mean(topology, TOPOLOGIES)} (there are {listing(TOPOLOGIES)})",
        )
    for name, what in REFUSED.items():
        if name in algorithms:
            report.add(
                f"algorithms.{name}",
                f"{what}, which does not go with decentralized; type algorithms.{name}=null, or "
                "algorithms.decentralized=null",
            )
    order = list(algorithms)
    if "ema" in order and order.index("ema") > order.index("decentralized"):
        report.add(
            "algorithms.ema",
            "must stand before decentralized, which else averages other weights over the ranks than are evaluated; "
            "move ema up in its YAML",
        )
