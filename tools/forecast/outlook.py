"""The machines that a forecast is for: this one, as measured, and another one, extrapolated."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from composer.utils import dist
from rich.console import Console

from common.errors import ConfigError
from config import Run
from tools.forecast import tables
from tools.forecast.arithmetic import Forecast, Measured
from tools.forecast.machines import Machine, Price, machine_of, price
from tools.forecast.peaks import PEAKS, device_name, flops_per_image, peak_of
from tools.forecast.plan import Plan


def forecast_of(run: Run, plan: Plan, measured: Measured) -> Forecast:
    """The forecast for this machine; the operations of its steps are counted where its peak is known."""
    peak = peak_of(run)
    if peak is None:
        return Forecast(plan, measured)
    flops = 0.0
    for size, count in plan.batches.items():
        data = replace(run.config.train_dataset, crop_size=size)
        flops += plan.batch_size * count * flops_per_image(replace(run.config, train_dataset=data))
    return Forecast(plan, measured, flops, peak * dist.get_world_size())


@dataclass(frozen=True)
class Outlook:
    """What the forecasts are shown for.

    Attributes:
        about: the run in a few words.
        device: what each process computes on.
        count: how many processes there are.
        here: the price of this machine.
        there: of the one to extrapolate to.
        scale: that machine; None: none.
    """

    about: str
    device: str
    count: int
    here: Price
    there: Price
    scale: Machine | None

    @classmethod
    def of(cls, given: argparse.Namespace, run: Run) -> Outlook:
        """What the command line asks for.

        Args:
            given: with price, machine and scale. A price is that of the machine extrapolated to, if there is one.
            run: prepared (training.devices).

        Raises:
            ConfigError: for a price, a machine or a scale that cannot be.
        """
        device, count = device_name(run), dist.get_world_size()
        scale = machine_of(given.scale, PEAKS) if given.scale else None
        if scale and peak_of(run) is None:
            raise ConfigError(
                f"--scale: {given.scale} given, but it goes by the ratio of GPUs' peaks, and that of {device} is not "
                "known; leave --scale out, or measure on a GPU"
            )
        there = price(given.price, given.machine, *((scale.kind, scale.count) if scale else (device, count)))
        here = price(None, None, device, count) if scale else there
        config = run.config
        about = f"{config.model.name}, batch {config.train_dataset.batch_size}, {run.machine.precision}"
        return cls(f"{about}, compile={config.compile}", device, count, here, there, scale)

    def show(self, forecasts: list[Forecast], console: Console) -> None:
        """Print what was timed, what that makes, and the same elsewhere."""
        machine = self.device if self.count == 1 else f"{self.count}x {self.device}"
        console.print()
        console.print(tables.pieces(forecasts, f"Measured on {machine}: {self.about}"))
        tables.show(forecasts, self.here, self.device, f"Forecast for {machine}", console)
        if self.scale:
            scaled = [self.elsewhere(forecast, self.scale) for forecast in forecasts]
            title = f"EXTRAPOLATED to {self.scale}, not measured"
            tables.show(scaled, self.there, self.scale.kind, title, console)
            console.print(
                f"{title}: steps by the ratio of the makers' 16-bit peaks, loading by the number of devices, each with "
                "as many cores as here; communication costs nothing",
                highlight=False,
            )

    @staticmethod
    def elsewhere(forecast: Forecast, scale: Machine) -> Forecast:
        """A forecast on other devices, which reach as much of their peak as these do."""
        assert forecast.peak is not None
        peak = PEAKS[scale.kind] * scale.count
        measured = forecast.measured.elsewhere(peak / forecast.peak, scale.count / dist.get_world_size())
        return replace(forecast, measured=measured, peak=peak)
