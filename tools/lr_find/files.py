"""Write the results of a learning-rate search: measurements, suggestions, and a plot of both."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from common.whole_files import write_whole
from tools.lr_find.rules import Suggestion
from tools.lr_find.sweep import Sweep

DASHES = {"steepest": (1, 2), "valley": (6, 2), "minimum/10": (4, 2, 1, 2)}  # on and off, in points


def write_all(
    folder: Path, sweeps: list[Sweep], found: list[Suggestion], best: Suggestion, about: dict[str, Any]
) -> None:
    """Write lr_find.csv, lr_find.json (`about`, whose `title` is the plot's too) and lr_find.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("seed", "point", "lr", "loss", "smoothed"))
    for sweep in sweeps:
        rows = zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True)
        writer.writerows((sweep.seed, point, *(f"{value:.6g}" for value in row)) for point, row in enumerate(rows))
    write_whole(folder / "lr_find.csv", text.getvalue().encode())
    write_whole(folder / "lr_find.json", (json.dumps(about, indent=2) + "\n").encode())
    image = io.BytesIO()
    draw(sweeps, found, best, about["title"]).savefig(image, format="png", dpi=150)
    write_whole(folder / "lr_find.png", image.getvalue())


def draw(sweeps: list[Sweep], found: list[Suggestion], best: Suggestion, title: str) -> Figure:
    """Return a plot of the losses over the learning rate, with the suggestions."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, sweep in enumerate(sweeps):
        color = f"C{number % 10}"
        axes.plot(sweep.rates, sweep.losses, ".", color=color, alpha=0.3, markersize=4)
        axes.plot(sweep.rates, sweep.smoothed, color=color, label=f"loss, smoothed (seed {sweep.seed})")
    for suggestion in found:
        is_best = suggestion is best
        label = f"{suggestion.rule}: {suggestion.lr:.3g}{' (recommended)' if is_best else ''}"
        color, width = ("crimson", 2.2) if is_best else ("0.35", 1.2)
        axes.axvline(suggestion.lr, color=color, linewidth=width, dashes=DASHES[suggestion.rule], label=label)
        if suggestion.highest > suggestion.lowest:
            axes.axvspan(suggestion.lowest, suggestion.highest, color=color, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_ylim(*_interesting([np.array(sweep.smoothed) for sweep in sweeps]))
    axes.set_xlabel("learning rate (optimizer.lr)")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=10)
    axes.grid(which="major", alpha=0.25)
    axes.legend(fontsize=9)
    return figure


def _interesting(curves: list[np.ndarray]) -> tuple[float, float]:
    """Return the range of losses to show: from below the lowest to above the first ones, without the explosion."""
    lowest, first = min(float(c.min()) for c in curves), max(float(c[: max(1, len(c) // 4)].max()) for c in curves)
    height = max(first - lowest, 1e-6)
    return lowest - 0.15 * height, first + 0.35 * height
