"""The published figures on a recipe's card as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def card_table(published: list[dict[str, Any]]) -> Table:
    """Build a table with a row per published figure: top-1, epochs, minutes, hardware and source."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("top-1 %", "epochs", "minutes"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    table.add_column("published in", ratio=1)
    for row in published:
        source = Text(str(row.get("source", "")))
        if row.get("note"):
            source.append(f" ({row['note']})", style="dim")
        figures = [str(row.get(key) if row.get(key) is not None else "-") for key in ("top1", "epochs", "minutes")]
        table.add_row(*figures, str(row.get("hardware") or "-"), source)
    return table
