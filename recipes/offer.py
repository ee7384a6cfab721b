"""The printed answer to a budget: recipes that fit, their forecast, and what to type."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table

from common.durations import parse
from config.read import Tree
from launch.machines import Price
from recipes.budget import DEFAULT, Budget
from recipes.choice import SIGMAS, Answer, Choice, Scale, spelled, spread_of, unit_of
from recipes.frontier import FLIPPED, HARDWARE, INFERRED
from recipes.published import Published

DATA = "train_dataset.path=/data/imagenet eval_dataset.path=/data/imagenet"
PER_MACHINE = 8  # GPUs


def table(answer: Answer, scale: Scale, price: Price, rows: Iterable[Published]) -> Table:
    """Return the recipes that fit."""
    shown, spread = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim"), spread_of(rows)
    shown.add_column("recipe_name", style="bold", no_wrap=True)
    for title in ("ep", "time", "dollars", "top-1 %"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("protocol", no_wrap=True)
    for choice in answer.best:
        minutes, own = (scale.minutes(choice), *scale.span(choice)), choice.point.figure.number("sd")
        per_unit, unit = unit_of(minutes[0])
        dollars = in_range([each / 60 * price.dollars for each in minutes]) if price.dollars else "-"
        time = in_range([each / per_unit for each in minutes], unit)
        top1 = f"{choice.top1:.1f} ± {spread if own is None else SIGMAS * own:.1f}"
        shown.add_row(choice.recipe, f"{choice.epochs:g}", time, dollars, top1, choice.point.protocol)
    return shown


def in_range(numbers: list[float], unit: str = "") -> str:
    """Return a cell: a number, its unit, and its range if that has a width, as in `6.8 h (5.2-12)`."""
    middle, low, high = (f"{number:,.0f}" if number >= 10 else f"{number:.1f}" for number in numbers)
    return f"{middle} {unit}".strip() + (f" ({low}-{high})" if low != high else "")


def remarks(answer: Answer, budget: Budget, scale: Scale, price: Price) -> list[str]:
    """Return what the table rests on, a sentence each."""
    said = []
    for choice in answer.best:
        row = choice.point.figure
        about = [row.source, row.verified]
        if row.variant and row.variant not in row.verified:
            about.insert(0, row.variant)
        if choice.shorter:
            ends = [f"{end.top1:.2f} % in {end.figure.epochs} epochs" for end in (choice.shorter, choice.point)]
            about.append(f"{choice.epochs:g} epochs lie between two published lengths, {' and '.join(ends)}")
        elif scale.published(choice):
            about.append("its source took this time on these GPUs")
        if choice.point.basis == INFERRED and not scale.published(choice):
            about.append(f"its minutes on {HARDWARE} are inferred, images / img/s, and so a lower bound")
        if choice.point.protocol == FLIPPED:
            about.append("mirrored images at 256 px are worth some tenths of a point")
        said.append(f"{choice.recipe}: {'; '.join(about)}.")
    if not all(map(scale.published, answer.best)):
        peaks = (
            f"{budget.count}x {budget.kind} at {scale.speed:.3g} times the speed of {HARDWARE}, by the makers' peaks. "
        )
        said.append(
            f"Time: {'' if scale.gpus == DEFAULT else peaks}{scale.runs} published runs on other GPUs took "
            f"{scale.lowest:.2f} to {scale.highest:.2f} times what this arithmetic says: hence the range"
            f"{', all of which fits' if budget.minutes or budget.dollars else ''}."
        )
    said.append(f"Dollars: {price.why}.")
    said.append(f"Top-1: ± {SIGMAS} standard deviations over seeds, of the most variable source if its own ran once.")
    for choice in answer.unverified:
        claim = f"{choice.recipe}, {choice.top1:g} % in {spelled(scale.minutes(choice))}"
        said.append(f"Not offered, because nobody has checked it: {claim}.")
    return [*said, "Nobody has trained these recipes with this code yet."]


def commands(choice: Choice, budget: Budget, trees: Mapping[str, Tree]) -> tuple[str, str]:
    """Return the command that trains a choice, and the one that measures its time first.

    `trees` are the resolved configurations of the recipes here, by name.
    """
    length = parse(trees[choice.recipe]["max_duration"]).value
    words = ""
    if choice.epochs and choice.epochs != length:
        # A run has whole epochs, rounded down.
        words += f" scale_schedule_ratio={math.ceil(choice.epochs / length * 1e9) / 1e9:.9g}"
        ends = {end.recipe for end in (choice.shorter, choice.point) if end and end.recipe in trees}
        if len(ends) > 1 and len({trees[end]["scheduler"]["t_warmup"] for end in ends}) == 1:
            words += " scheduler.scale_warmup=false"
    start = f"composer -n {min(budget.count, PER_MACHINE)}"
    run = f"yamls/resnet50.yaml recipe_name={choice.recipe}{words} device_train_microbatch_size=auto {DATA}"
    return f"{start} main.py {run}", f"{start} -m tools.forecast {run}"
