"""Time a training step over slow links: AllReduce and topologies.

    python -m benchmarks.decentralized
    python -m benchmarks.decentralized --nodes 2 --gbits 10,25 --delay 0.2 --jitter 0,50 --megabytes 102

Each node is a network namespace with one rank; `tc` limits the speed of its link, and packets arrive after the delay.
The ranks run Composer's Trainer and exchange weights or gradients over gloo. A ResNet-50 has 102 MB of them, which take
as long over 10 Gbit/s as the default 10 MB over 1 Gbit/s. Sleeping replaces computing; `--jitter` adds a random time
per rank and step (stragglers). All methods take turns for `--rounds` rounds; the table shows the medians. Needs root,
ip and tc, and removes the namespaces afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.links import DEVICE, Links, end, start
from common.output import take_any_text
from config import UserError
from recipes.topologies import TOPOLOGIES, misfit

PORT = 29500
REACH_BYTES = 1 << 28  # sent to measure a link's real speed


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decentralized",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=4, help="nodes of one rank each (default: 4)")
    parser.add_argument("--gbits", default="1,10", help="link speeds in Gbit/s (default: 1,10)")
    parser.add_argument("--delay", type=float, default=1.0, help="round trip in milliseconds (default: 1)")
    parser.add_argument("--megabytes", type=float, default=10.0, help="size of the weights in MB (default: 10)")
    parser.add_argument("--compute", type=float, default=100.0, help="milliseconds computing per step (default: 100)")
    parser.add_argument("--jitter", default="0,100", help="mean random extra milliseconds per step (default: 0,100)")
    parser.add_argument("--steps", type=int, default=12, help="steps per method and round (default: 12)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    given = parser.parse_args(argv)
    for name in ("gbits", "jitter"):
        try:
            setattr(given, name, [float(word) for word in getattr(given, name).split(",")])
        except ValueError:
            parser.error(f"--{name}: {getattr(given, name)!r} given; it must be numbers, as in 1,10")
    if given.nodes < 2 or given.steps < 1 or given.rounds < 1 or min(given.gbits) <= 0 or given.megabytes <= 0:
        parser.error("--nodes must be at least 2, --steps and --rounds at least 1, --megabytes and --gbits above 0")
    return given


def methods(nodes: int) -> dict[str, dict | None]:
    """Return the methods to compare: name in the table -> arguments of Decentralized, or None for AllReduce."""
    compared: dict[str, dict | None] = {"AllReduce": None}
    for topology in TOPOLOGIES:
        if misfit(topology, nodes, 1) is None:
            compared[topology] = {"topology": topology, "lockstep": False}
    both = "one_peer_exp" if "one_peer_exp" in compared else "complete"
    return {**compared, f"{both}, lockstep": {"topology": both, "lockstep": True}}


def measure(links: Links, nodes: int, algorithm: dict | None, given: argparse.Namespace, jitter: float) -> float:
    """Run one process per node, and return their mean milliseconds per step.

    Raises:
        UserError: if a process failed.
    """
    from benchmarks.paced import Node, Pace, step_seconds

    with tempfile.TemporaryDirectory(prefix="bench-decentralized-") as folder:

        def run(rank: int) -> None:
            links.enter(rank)
            node = Node(rank, nodes, links.address(0), PORT, DEVICE)
            pace = Pace(given.compute / 1e3, jitter / 1e3, rank)
            seconds = step_seconds(node, algorithm, given.megabytes, given.steps, pace)
            Path(folder, str(rank)).write_text(json.dumps(seconds))

        children = [start(run, rank) for rank in range(nodes)]
        try:
            for child in children:
                os.waitpid(child, 0)
            return statistics.mean(1e3 * json.loads(Path(folder, str(rank)).read_text()) for rank in range(nodes))
        except FileNotFoundError:
            raise UserError("a rank failed; its output is above") from None
        finally:
            for child in children:
                end(child)


def reached(links: Links) -> float:
    """Measure the Gbit/s of one connection over one link, without headers."""

    def receive() -> None:
        links.enter(1)
        with socket.create_server((links.address(1), PORT)) as server:
            connection = server.accept()[0]
            while connection.recv(1 << 20):
                pass
            connection.close()

    def send() -> None:
        links.enter(0)
        for _ in range(100):
            try:
                connection = socket.create_connection((links.address(1), PORT))
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        block = bytes(1 << 20)
        for _ in range(REACH_BYTES >> 20):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    receiver, began = start(receive), time.monotonic()
    os.waitpid(start(send), 0)
    seconds = time.monotonic() - began
    end(receiver)
    return REACH_BYTES * 8 / seconds / 1e9


def bench(given: argparse.Namespace, console: Console) -> None:
    """Measure everything in turns, and print the table."""
    compared = methods(given.nodes)
    cases = list(product(given.gbits, given.jitter))
    times: dict[tuple[str, float, float], list[float]] = {(name, *case): [] for name in compared for case in cases}
    carried = {}
    with Links(given.nodes, given.delay / 2e3) as links:
        for gbits in given.gbits:
            links.limit(gbits)
            carried[gbits] = reached(links)
            console.print(f"a link of {gbits:g} Gbit/s carries {carried[gbits]:.2f} Gbit/s", highlight=False)
            for _ in range(given.rounds):
                for jitter, (name, algorithm) in product(given.jitter, compared.items()):
                    taken = measure(links, given.nodes, algorithm, given, jitter)
                    times[name, gbits, jitter].append(taken)
                    console.print(f"{gbits:g} Gbit/s, +{jitter:g} ms, {name}: {taken:.0f} ms", style="dim")
    title = (
        f"Milliseconds per step, {given.nodes} nodes, {given.compute:g} ms of computing, {given.delay:g} ms round trip"
    )
    table = Table(title=f"{title}: median of {given.rounds} rounds of {given.steps} steps")
    table.add_column("method")
    for gbits, jitter in cases:
        stragglers = f", stragglers +{jitter:g} ms" if jitter else ""
        table.add_column(f"{gbits:g} Gbit/s ({carried[gbits]:.1f} carried){stragglers}", justify="right")
    for name in compared:
        table.add_row(name, *(f"{statistics.median(times[name, *case]):.0f}" for case in cases))
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and return the exit status."""
    given = parse(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # gloo warns that the addresses have no names
    take_any_text()
    try:
        bench(given, Console(soft_wrap=True, width=150))
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    # Remove the namespaces after a SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
