"""How far a copy is."""

from datetime import timedelta

from common.terminal import Meter


def amount(count: float) -> str:
    """A number of bytes, in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


class ByteMeter(Meter):
    """Bytes, in MB/s."""

    def figures(self, done: int) -> str:
        """How much of how much, how fast, how long still."""
        speed = self.rate.per_second
        left = f", {timedelta(seconds=round((self.total - done) / speed))} left" if speed > 0 else ""
        return f"{amount(done)} of {amount(self.total)}, {amount(speed)}/s{left}"
