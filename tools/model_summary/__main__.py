"""List a network's layers with shapes, parameters and memory.

    python -m tools.model_summary                                       # ResNet-50 at 224 px
    python -m tools.model_summary yamls/digits.yaml recipe_name=mild --depth 1
    python -m tools.model_summary model.name=resnet18 --batch 256

The network is the recipe's, after BlurPool and the like. Megabytes are 2^20 bytes, numbers have 4 bytes each, and
the output of a layer counts twice, for its gradient, as torchsummary counts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from common import command
from common.terminal import positive
from config import Run, load
from config.read import ROOT

if TYPE_CHECKING:
    from torch import nn
    from torchinfo import ModelStatistics

MEGABYTE = 2**20
CONTAINERS = ("Sequential", "ModuleList")  # their output is that of their last layer


def load_run(words: list[str]) -> Run:
    """Return the run of a command line; its data need not exist."""
    if not any(word.endswith((".yaml", ".yml")) and "=" not in word for word in words):
        words = [str(ROOT / "yamls" / "resnet50.yaml"), *words]
    return load([*words, "dry_run=true"])


def network(run: Run) -> nn.Module:
    """Return the network as the run trains it, after the recipe's surgery."""
    from composer.core import Event, State
    from composer.loggers import Logger
    from composer.utils import get_device

    from training import build

    model = build.model(run.config)
    state = State(rank_zero_seed=0, model=model, run_name="summary", device=get_device("cpu"))
    for algorithm in build.algorithms(run.config):
        if algorithm.required_on_load() and algorithm.match(Event.INIT, state):
            algorithm.apply(Event.INIT, state, Logger(state))
    return model.module


def table(statistics: ModelStatistics, depth: int) -> list[str]:
    """Return a line per layer: name and type, output shape, and parameters."""
    lines = []
    for layer in statistics.summary_list:
        if layer.depth > depth:
            continue
        name = f"{layer.var_name} ({layer.class_name})" if layer.depth else layer.class_name
        shape = "x".join(map(str, layer.output_size))
        parameters = f"{layer.num_params:,}" if layer.num_params > 0 else "-"
        count = "(again)" if layer.is_recursive else parameters
        lines.append(f"{'  ' * layer.depth + name:<44}{shape:>20}{count:>16}")
    return lines


def totals(statistics: ModelStatistics) -> list[tuple[str, str]]:
    """Return the totals."""
    layers = [layer for layer in statistics.summary_list if layer.depth and layer.class_name not in CONTAINERS]
    parameters = statistics.total_params
    bytes_of = {
        "Input size": sum(4 * math.prod(shape) for shape in statistics.input_size),
        "Forward/backward pass size": sum(2 * 4 * math.prod(layer.output_size) for layer in layers),
        "Params size": 4 * parameters,
    }
    bytes_of["Estimated total size"] = sum(bytes_of.values())
    return [
        ("Total params", f"{parameters:,}"),
        ("Trainable params", f"{statistics.trainable_params:,}"),
        ("Multiply-adds", f"{statistics.total_mult_adds:,}"),
        *((f"{name} (MB)", f"{size / MEGABYTE:.2f}") for name, size in bytes_of.items()),
    ]


def main(argv: Sequence[str]) -> int:
    """Print the table; return 0."""
    parser = command.parser("tools.model_summary", __doc__)
    parser.add_argument("words", nargs="*", metavar="ARG", help="a run's YAML (default: resnet50.yaml) and key=value")
    parser.add_argument("--batch", type=positive, default=1, help="images to estimate the memory for (default: 1)")
    parser.add_argument("--depth", type=positive, default=9, help="levels of nested layers (default: all)")
    given = parser.parse_intermixed_args(argv)
    run = load_run(given.words)
    from torchinfo import summary  # with torch, which takes seconds: mistakes are reported before

    size = run.config.train_dataset.crop_size
    statistics = summary(network(run), (given.batch, 3, size, size), depth=9, device="cpu", verbose=0)
    print(f"{'Layer (type)':<44}{'Output shape':>20}{'Params':>16}\n{'=' * 80}")
    print("\n".join(table(statistics, given.depth)))
    print("=" * 80)
    for name, value in totals(statistics):
        print(f"{name}: {value}")
    return 0


run = partial(command.run, main)

if __name__ == "__main__":
    sys.exit(run())
