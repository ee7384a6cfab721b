"""`python -m recipes` lists the recipes with their published figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common import command
from common.durations import parse
from config.load import Recipe, read_recipe, recipe_files
from config.schema import Config


def value(recipe: Recipe, key: str) -> Any:
    """What a recipe sets a dotted key to, or the schema's default."""
    node: Any = recipe.changes
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if node is not None:
        return node
    found: Any = Config()
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


def facts(recipe: Recipe) -> Text:
    """A recipe's name, summary, length, loss, sizes and algorithms, for one cell."""
    loss = str(value(recipe, "model.loss_name"))
    short = {"cross_entropy": "CE", "binary_cross_entropy": "BCE"}.get(loss, loss)
    crop, resize, seen = (
        value(recipe, key) for key in ("train_dataset.crop_size", "eval_dataset.resize_size", "eval_dataset.crop_size")
    )
    text = Text(str(recipe.card.get("summary", "")))
    text.append(f"\n{value(recipe, 'max_duration')}, {short}, crop {crop} px, measured at {resize}/{seen} px", "cyan")
    algorithms = value(recipe, "algorithms")
    if algorithms:
        text.append("\n" + ", ".join(algorithms), "dim")
    return text


def figures(recipe: Recipe) -> Table:
    """A recipe's published figures, one to a row, with source and note below."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False, expand=True)
    table.add_column(width=11, style="bold")
    table.add_column(ratio=1)
    for row in recipe.card.get("published") or []:
        units = {"epochs": " ep", "minutes": " min", "hardware": ""}
        line = Text(", ".join(f"{row[key]}{unit}" for key, unit in units.items() if row.get(key)))
        line.append(("; " if line else "") + str(row.get("source", "source not given")))
        if row.get("note"):
            line.append(f" ({row['note']})", "dim")
        table.add_row(f"{row.get('top1', '-')} %", line)
    return table


def length(recipe: Recipe) -> float:
    """The number in a recipe's max_duration, to sort by."""
    return parse(value(recipe, "max_duration")).value


def listing() -> Table:
    """All recipes, the short ones first, those without algorithms before all."""
    table = Table(box=box.SIMPLE_HEAD, show_lines=True, expand=True, padding=(0, 1))
    table.add_column("recipe_name", style="bold", no_wrap=True)
    table.add_column("what it is", ratio=4)
    table.add_column("published: top-1, length, time, hardware; source", ratio=5)
    recipes = [read_recipe(name) for name in recipe_files()]
    for recipe in sorted(recipes, key=lambda recipe: (bool(value(recipe, "algorithms")), length(recipe))):
        table.add_row(recipe.name, facts(recipe), figures(recipe))
    return table


def main() -> int:
    """Print the table; the exit status."""
    return command.run(show)


def show(_words: Sequence[str]) -> int:
    """Print the table; 0."""
    console = Console()
    console.print(listing())
    console.print("All figures are from elsewhere, as stated; README.md has what was measured here.", style="dim")
    console.print("Use one:      composer main.py yamls/resnet50.yaml recipe_name=mild ...", style="dim")
    console.print("Look into it: python main.py yamls/resnet50.yaml recipe_name=mild dry_run=true", style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
