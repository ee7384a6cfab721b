"""List the recipes (`python -m recipes`), or show the figures, changes and algorithms of one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from common.command import run
from common.durations import parse
from common.terminal import console
from config.dry_run import card_table, heading, leaves, yaml_like
from config.load import BASELINE, as_shipped, read_recipe, recipe_files


def best(published: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the published figure with the highest top-1, ignoring ranges and missing ones."""
    single = [row for row in published if isinstance(row.get("top1"), int | float)]
    return max(single, key=lambda row: row["top1"], default={})


def listing() -> Table:
    """Return a table with one row per recipe, the shortest first."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("recipe_name", style="bold", no_wrap=True)
    for title in ("epochs", "crop", "top-1 %", "in ep", "min"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    trees = {name: as_shipped(name) for name in recipe_files()}
    for name in sorted(trees, key=lambda name: parse(trees[name]["max_duration"]).value):
        tree, figure = trees[name], best(read_recipe(name).card.get("published") or [])
        cells = [str(figure.get(key) or "-") for key in ("top1", "epochs", "minutes", "hardware")]
        cells[0] += "?" if "UNVERIFIED" in figure.get("note", "") else ""
        table.add_row(name, tree["max_duration"].removesuffix("ep"), str(tree["train_dataset"]["crop_size"]), *cells)
    return table


def changes(name: str) -> Table:
    """Return a table of the keys that a recipe changes: key, the baseline's value, the recipe's value."""
    before, after = (dict(leaves(as_shipped(recipe))) for recipe in (BASELINE, name))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("key", BASELINE, "this recipe"):
        table.add_column(title, overflow="fold")
    for key in dict.fromkeys([*before, *after]):
        old, new = (yaml_like(values[key]) if key in values else "-" for values in (before, after))
        if old != new and not key.startswith("algorithms"):
            table.add_row(key, old, new)
    return table


def describe(out: Console, name: str) -> None:
    """Print the card, the changes and the algorithms of a recipe."""
    recipe, algorithms = read_recipe(name), as_shipped(name)["algorithms"]
    heading(out, name, str(recipe.card.get("summary", "")))
    if published := recipe.card.get("published"):
        out.print(Padding(card_table(published), (0, 0, 0, 2)))
    differences = changes(name)
    heading(out, "Changes from baseline" if differences.row_count else "Changes nothing from baseline")
    if differences.row_count:
        out.print(Padding(differences, (0, 0, 0, 2)))
    heading(out, "Algorithms" if algorithms else "No algorithms")
    table = Table.grid(padding=(0, 2))
    for algorithm, arguments in algorithms.items():
        table.add_row(algorithm, ", ".join(f"{key}={yaml_like(value)}" for key, value in arguments.items()))
    out.print(Padding(table, (0, 0, 0, 2)))
    heading(out, "Read more", f"{recipe.label} gives the reason for each value")


def main(argv: Sequence[str]) -> int:
    """Print the list or one recipe; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes", description="List the recipes, or show one of them.")
    parser.add_argument("name", nargs="?", help="name of a recipe, or path of your own YAML; omit it to list all")
    out, name = console(), parser.parse_args(argv).name
    if name:
        describe(out, name)
        return 0
    out.print(listing())
    out.print("\ntop-1 %: best published figure (?: unverified); not measured here")
    out.print("Show one: python -m recipes mild")
    out.print("Use one:  composer main.py yamls/resnet50.yaml recipe_name=mild ...")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
