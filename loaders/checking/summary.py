"""Print the result of a check: a table of the splits, remarks and faults."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from loaders.checking.splits import Split
from loaders.images.decoding import unchecked


def print_faults(console: Console, path: str, faults: Sequence[str], most: int | None = None) -> None:
    """Print the faults of a data set: at most `most` of them, if given."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
    console.print(f"\n{path}: {count}", style="bold red", highlight=False, markup=False)
    for fault in faults[:most]:
        console.print(f"- {fault}", highlight=False, markup=False)
    if most is not None and len(faults) > most:
        console.print(f"and {len(faults) - most} more.")


def show_summary(console: Console, path: str, splits: Sequence[Split], remarks: Sequence[str]) -> None:
    """Print the table, the remarks, and what this machine cannot check."""
    console.print(summary_table(path, splits))
    for remark in filter(None, [*remarks, unchecked()]):
        console.print(remark, style="dim", highlight=False, markup=False)


def summary_table(path: str, splits: Sequence[Split]) -> Table:
    """Build a table of the classes, images, bytes and sizes of each split."""
    table = Table(title=f"Data set {path}", title_justify="left")
    for name in ("split", "classes", "images", "per class", "bytes", "pixels: min / median / max"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=not name.startswith("pixels"))
    for split in splits:
        counts = split.per_class
        spread = f"{min(counts)}" if counts and min(counts) == max(counts) else ""
        if counts and not spread:
            spread = f"{min(counts)} to {max(counts)}"
        classes = "not recorded" if split.num_classes is None else f"{split.num_classes}"
        table.add_row(
            split.name, classes, f"{split.images:,}", spread or "-", megabytes(split.stored), extent(split.sizes)
        )
    return table


def megabytes(count: int) -> str:
    """Format a number of bytes in MB."""
    return f"{count / 1e6:,.2f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


def extent(sizes: Sequence[tuple[int, int]]) -> str:
    """Format the smallest, median and largest width and height."""
    if not sizes:
        return "-"
    low, middle, high = (np.percentile(np.array(sizes), share, axis=0).astype(int) for share in (0, 50, 100))
    return " / ".join(f"{width}x{height}" for width, height in (low, middle, high))
