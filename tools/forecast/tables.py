"""What a forecast prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from tools.forecast.arithmetic import Forecast
from tools.forecast.machines import Price
from training.data_wait import TOLERATED


def spelled(seconds: float) -> str:
    """A time in the unit that fits: 7.52 h, 12.3 min, 41 s."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def rate(per_second: float) -> str:
    """Images per second."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def heads(*names: str, title: str) -> Table:
    """A table whose numbers stand to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name == "\nrecipe" else "right", no_wrap=True)
    return table


def pieces(forecasts: list[Forecast], title: str) -> Table:
    """A row per recipe and size: what was timed."""
    table = heads("\nrecipe", "\npx", "\nsteps", "a step\nms", "run\nimg/s", "loader\nimg/s", "\nwaits", title=title)
    for forecast in forecasts:
        plan = forecast.plan
        for size, count in plan.batches.items():
            pace = forecast.measured.steps[size]
            loader = rate(plan.batch_size / pace.loading) if pace.loading else "-"
            cells = [f"{count:,.0f}", f"{1000 * pace.seconds:,.0f}", rate(plan.batch_size / pace.seconds), loader]
            is_last = size == list(plan.batches)[-1]
            table.add_row(plan.recipe, str(size), *cells, f"{pace.waited / pace.seconds:.0%}", end_section=is_last)
    return table


def totals(forecasts: list[Forecast], price: Price, title: str) -> Table:
    """A row per recipe: what its whole run takes."""
    names = ("\nrecipe", "\nlength", "\nimg/s", "\nMFU", "\nwaits", "train-\ning", "evalu-\nating", "\nin all")
    table = heads(*names, "\ndollars", title=title)
    for forecast in forecasts:
        dollars = forecast.dollars(price.per_hour)
        table.add_row(
            forecast.plan.recipe,
            forecast.plan.length,
            rate(forecast.rate),
            "-" if forecast.mfu is None else f"{forecast.mfu:.1%}",
            f"{forecast.wait_share:.0%}",
            *map(spelled, (forecast.training, forecast.evaluating, forecast.everything)),
            "" if dollars is None else f"{dollars:,.2f}",
        )
    return table


def notes(forecasts: list[Forecast], price: Price, device: str) -> Iterator[str]:
    """What the totals rest on, and why a column is empty."""
    yield f"dollars: {price.note}"
    if any(forecast.mfu is None for forecast in forecasts):
        yield f"MFU: the peak of {device} is not known"
    for forecast in forecasts:
        plan, measured = forecast.plan, forecast.measured
        saving = f", {plan.saves} checkpoints {spelled(plan.saves * measured.save)}" if plan.saves else ""
        sizes = f", new image sizes {spelled(measured.new_size)}" if len(plan.batches) > 1 else ""
        yield f"{plan.recipe}: in all also has starting up {spelled(measured.start_up)}{sizes}{saving}"


def bottlenecks(forecasts: list[Forecast]) -> Iterator[str]:
    """Where data hold the training up: what that costs, and what to change."""
    for forecast in forecasts:
        if forecast.wait_share > TOLERATED:
            without = spelled(forecast.training - forecast.waiting)
            yield (
                f"{forecast.plan.recipe}: waiting for data {forecast.wait_share:.0%} of the training, which takes "
                f"{without} without: {forecast.measured.advice}"
            )


def show(forecasts: list[Forecast], price: Price, device: str, title: str, console: Console) -> None:
    """Print the totals with their notes."""
    console.print(totals(forecasts, price, title))
    for line in notes(forecasts, price, device):
        console.print(line, highlight=False)
