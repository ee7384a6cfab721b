"""The options of programs that take one network: a run's, or a file's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.terminal import local_path
from loaders.class_names import names_of
from tools.networks.inputs import INPUT, add_input_options, stated

if TYPE_CHECKING:
    from tools.networks.opened import Network


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the network's argument, and the options that say how to open it and what its classes are called."""
    add = parser.add_argument
    add(
        "network",
        type=local_path,
        help="a run folder, runs/NAME, or the file of a network: .onnx, .pt of TorchScript, .pt2",
    )
    add("--checkpoint", metavar="best|latest|PATH", help="of a run (default: best)")
    add("--names", type=local_path, metavar="FILE", help='names of the classes: lines "n01440764 tench", or JSON')
    add_trust_options(parser)
    add_input_options(parser, "a network's file")


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that let code from outside this project run."""
    add = parser.add_argument
    trusted = "run the code in a checkpoint that is more than data; only if you trust it"
    add("--load-unsafe-pickle", action="store_true", help=trusted)
    trusted = (
        "import the classes from outside this project that the run's configuration names, or load a network of "
        "torch's, which is a program; only if you trust it"
    )
    add("--outside-code", action="store_true", help=trusted)


def network_problems(given: argparse.Namespace) -> list[str]:
    """List the options that are not for this network."""
    if given.network.is_dir():
        described = [f"--{name}" for name in INPUT if getattr(given, name) is not None]
        return [f"{', '.join(described)}: for the file of a network; a run knows its own"] if described else []
    return [f"--checkpoint {given.checkpoint}: is for a run; {given.network} is no folder"] if given.checkpoint else []


def open_given(given: argparse.Namespace) -> tuple[Network, Sequence[str]]:
    """Open the network, and return it with what people call its classes; raises as `open_network`."""
    from tools.networks.opened import open_network  # late: torch takes seconds

    network = open_network(
        given.network,
        checkpoint=given.checkpoint or "best",
        unsafe_pickle=given.load_unsafe_pickle,
        outside_code=given.outside_code,
        stated=stated(given),
    )
    return network, names_of(network.classes, given.names) if given.names else network.names
