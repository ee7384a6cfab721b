"""List the recipes, show the figures, changes and algorithms of one, compare them, or choose one.

python -m recipes                # the list
python -m recipes mild           # one recipe
python -m recipes --frontier     # published top-1 by minutes on 8x A100, and what dominates what
python -m recipes --budget "8x H100, 1 hour"     # which recipe, and its forecast
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from common.command import parser, run
from common.durations import parse
from common.errors import ConfigError
from common.suggest import listing as words_of
from common.terminal import console
from common.trees import leaves
from config.dry_run import section, show_card, yaml_like
from config.load import BASELINE, as_shipped, read_recipe, recipe_files
from config.read import Tree
from launch.machines import price
from recipes import budget, choice, frontier, offer
from recipes.published import read_published

WRITERS = {"csv": frontier.as_csv, "json": frontier.as_json}
FORMATS = ("table", *WRITERS)


def shortest_first() -> dict[str, Tree]:
    """Return the resolved configuration of each recipe, by name."""
    trees = {name: as_shipped(name) for name in recipe_files()}
    return dict(sorted(trees.items(), key=lambda item: parse(item[1]["max_duration"]).value))


def best_figure(name: str) -> dict[str, Any]:
    """Return a recipe's highest published top-1 with what its card says of it; empty without one."""
    numbers = [row for row in read_recipe(name).card.get("published") or () if isinstance(row.get("top1"), int | float)]
    return max(numbers, key=lambda row: row["top1"], default={})  # others are ranges


def is_unverified(figure: dict[str, Any]) -> bool:
    """Whether nobody has checked a published figure at its source."""
    return "UNVERIFIED" in (figure.get("note") or "")


def listing() -> Table:
    """Return a table with one row per recipe, the shortest first, and its highest published top-1."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("recipe_name", style="bold", no_wrap=True)
    for title in ("epochs", "crop", "top-1 %", "in ep", "min"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    for name, tree in shortest_first().items():
        figure = best_figure(name)
        cells = [str(figure.get(key) or "-") for key in ("top1", "epochs", "minutes", "hardware")]
        cells[0] += "?" if is_unverified(figure) else ""
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
    show_card(out, recipe.title, recipe.card)
    if (differences := changes(name)).row_count:
        section(out, "Changes from baseline", body=differences)
    else:
        section(out, "Changes nothing from baseline")
    table = Table.grid(padding=(0, 2))
    for algorithm, arguments in algorithms.items():
        table.add_row(algorithm, ", ".join(f"{key}={yaml_like(value)}" for key, value in arguments.items()))
    section(out, "Algorithms" if algorithms else "No algorithms", body=table)
    files = " and ".join(each.label for each in reversed(recipe.lineage))
    section(out, "Read more", f"{files} give{'' if recipe.parent else 's'} the reason for each value")


def main(argv: Sequence[str]) -> int:
    """Print the list or one recipe; return the exit status."""
    words = parser("recipes", __doc__)
    one = words.add_mutually_exclusive_group()
    one.add_argument("name", nargs="?", help="name of a recipe, or path of your own YAML; omit it to list all")
    one.add_argument("--frontier", action="store_true", help="published figures by minutes on 8x A100")
    examples = f"as in {words_of(map(repr, budget.EXAMPLES))}".replace("%", "%%")
    one.add_argument("--budget", metavar="TEXT", help=f"the recipe that fits, {examples}")
    words.add_argument("--price", type=float, help="of --budget: dollars per hour of all GPUs together")
    words.add_argument("--format", choices=FORMATS, help="of --frontier (default: table)")
    given = words.parse_args(argv)
    if given.format and not given.frontier:
        raise ConfigError(f"--format: {given.format} given without --frontier, whose output it is for; add --frontier")
    if given.price is not None and given.budget is None:
        raise ConfigError(f"--price: {given.price:g} given without --budget, whose GPUs it is for; add --budget")
    out = console()
    if given.name:
        describe(out, given.name)
    elif given.frontier:
        show_frontier(out, given.format or "table")
    elif given.budget is not None:
        show_offer(out, budget.parse(given.budget), given.price)
    else:
        show_list(out)
    return 0


def show_frontier(out: Console, form: str) -> None:
    """Print the published figures by minutes, in one of FORMATS."""
    found, shipped = frontier.points(read_published()), recipe_files()
    if form in WRITERS:
        print(WRITERS[form](found, shipped))
    else:
        out.print(frontier.table(found, shipped))
        out.print(frontier.LEGEND)


def show_offer(out: Console, wanted: budget.Budget, hourly: float | None) -> None:
    """Print the recipes that fit a budget, their forecast, and what to type."""
    rows, paid = read_published(), price(hourly, None, wanted.kind, wanted.count)
    scale, trees = choice.scale_for(wanted, rows), shortest_first()
    answer = choice.answer(rows, trees, wanted, scale, paid)
    out.print(f"Budget: {wanted}\n")
    out.print(offer.table(answer, scale, paid, rows))
    out.print()
    for sentence in offer.remarks(answer, wanted, scale, paid):
        out.print(sentence)
    for best in answer.best:
        out.print(f"\nTrain {best.recipe}, or measure its time first:")
        for command in offer.commands(best, wanted, trees):
            out.print(command)
    if wanted.count > offer.PER_MACHINE:
        out.print("\nSeveral machines: docs/clusters.md")


def show_list(out: Console) -> None:
    """Print a row per recipe, and what to type next."""
    out.print(listing())
    out.print("\ntop-1 %: best published figure (?: unverified); not measured here")
    out.print("Show one: python -m recipes mild")
    out.print("Compare:  python -m recipes --frontier")
    out.print('Choose:   python -m recipes --budget "8x H100, 1 hour"')
    out.print("Use one:  composer main.py yamls/resnet50.yaml recipe_name=mild ...")


if __name__ == "__main__":
    sys.exit(run(main))
