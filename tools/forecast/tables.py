"""The output of a forecast: for this machine, as measured, and for another one, extrapolated."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from composer.utils import dist
from rich import box
from rich.console import Console
from rich.table import Table

from common.errors import ConfigError
from config import Run
from launch.machines import PEAKS, Price, machine_of, price
from tools.forecast.arithmetic import Forecast
from tools.forecast.machines import device_name, peak_of
from training.data_wait import TOLERATED


class Outlook:
    """The machines that forecasts are shown for, given the options and a prepared run."""

    def __init__(self, given: argparse.Namespace, run: Run) -> None:
        self.device, count, config = device_name(run), dist.get_world_size(), run.config
        self.scale = machine_of(given.scale, PEAKS) if given.scale else None
        if self.scale and peak_of(run) is None:
            raise ConfigError(
                f"--scale: {given.scale} given, but it needs the peak FLOP/s of both GPUs, and that of {self.device} "
                "is not known; leave --scale out, or measure on a GPU"
            )
        devices, kind = self.scale or (count, self.device)  # which --price and --machine are about
        self.scaled = price(given.price, given.machine, kind, devices)
        self.here = price(None, None, self.device, count) if self.scale else self.scaled
        about = f"{config.model.name}, batch {config.train_dataset.batch_size}, {run.machine.precision}"
        self.about = f"{about}, compile={run.machine.compile}"

    def show(self, forecasts: list[Forecast], console: Console) -> None:
        """Print the times measured, the totals, and the totals on the other machine."""
        count = dist.get_world_size()
        machine = self.device if count == 1 else f"{count}x {self.device}"
        console.print()
        console.print(pieces(forecasts, f"Measured on {machine}: {self.about}"))
        show(forecasts, self.here, self.device, f"Forecast for {machine}", console)
        if self.scale:
            devices, kind = self.scale
            peak = PEAKS[kind] * devices
            scaled = [
                replace(one, measured=one.measured.elsewhere(peak / (one.peak or peak), devices / count), peak=peak)
                for one in forecasts
            ]
            title = f"EXTRAPOLATED to {devices}x {kind}, not measured"
            show(scaled, self.scaled, kind, title, console)
            console.print(
                f"{title}: steps by the ratio of the makers' 16-bit peaks, loading by the number of devices, each with "
                "as many cores as here; communication costs nothing",
                highlight=False,
            )


def spelled(seconds: float) -> str:
    """Return a time in the unit that fits: 7.52 h, 12.3 min, 41.0 s."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def rate(per_second: float) -> str:
    """Return images per second as a cell."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def heads(*names: str, title: str) -> Table:
    """Return a table of right-aligned columns, except the recipe's."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name == "\nrecipe" else "right", no_wrap=True)
    return table


def pieces(forecasts: list[Forecast], title: str) -> Table:
    """Return the measured times, a row per recipe and size."""
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


def show(forecasts: list[Forecast], price: Price, device: str, title: str, console: Console) -> None:
    """Print the whole runs, a row per recipe, with the sources of the totals, and why a column is empty."""
    names = ("\nrecipe", "\nlength", "\nimg/s", "\nMFU", "\nwaits", "train-\ning", "evalu-\nating", "\nin all")
    table = heads(*names, "\ndollars", title=title)
    for forecast in forecasts:
        dollars = forecast.dollars(price.dollars)
        table.add_row(
            forecast.plan.recipe,
            forecast.plan.length,
            rate(forecast.rate),
            "-" if forecast.mfu is None else f"{forecast.mfu:.1%}",
            f"{forecast.wait_share:.0%}",
            *map(spelled, (forecast.training, forecast.evaluating, forecast.everything)),
            "" if dollars is None else f"{dollars:,.2f}",
        )
    console.print(table)
    console.print(f"dollars: {price.why}", highlight=False)
    if any(forecast.mfu is None for forecast in forecasts):
        console.print(f"MFU: the peak of {device} is not known", highlight=False)
    for forecast in forecasts:
        plan, measured = forecast.plan, forecast.measured
        saving = f", {plan.saves} checkpoints {spelled(plan.saves * measured.save)}" if plan.saves else ""
        sizes = f", new image sizes {spelled(measured.new_size)}" if len(plan.batches) > 1 else ""
        line = f"{plan.recipe}: total includes starting up {spelled(measured.start_up)}{sizes}{saving}"
        console.print(line, highlight=False)


def bottlenecks(forecasts: list[Forecast]) -> Iterator[str]:
    """Yield the recipes that wait for data: what that costs, and what to change."""
    for forecast in forecasts:
        if forecast.wait_share > TOLERATED:
            without = spelled(forecast.training - forecast.waiting)
            yield (
                f"{forecast.plan.recipe}: waiting for data {forecast.wait_share:.0%} of the training, which would "
                f"take {without} without: {forecast.measured.advice}"
            )


def comparison(forecasts: list[Forecast], summaries: list[dict[str, Any]]) -> Table:
    """Return forecast, reality (the runs' summary.json) and their ratio, for each clock of each run."""
    table = heads("\nrecipe", "\nclock", "\nforecast", "\nreal", "forecast\n/ real", title="Forecast and reality")
    for forecast, summary in zip(forecasts, summaries, strict=True):
        clocks = {"train": forecast.training, "eval": forecast.evaluating, "total": forecast.everything}
        for clock, seconds in clocks.items():
            real = summary[f"{clock}_seconds"]
            table.add_row(forecast.plan.recipe, clock, spelled(seconds), spelled(real), f"{seconds / real:.2f}")
    return table
