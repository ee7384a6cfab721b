"""Formats of the figures in a report."""

import math
from string import ascii_lowercase
from typing import Any

from tools.records.groups import Spread


def with_spread(of: Spread | None, digits: int = 2, scale: float = 1.0) -> str:
    """Return a mean, with the standard deviation if there are several runs: `76.07 ± 0.13`."""
    if of is None:
        return ""
    mean = f"{of.mean / scale:,.{digits}f}"
    return mean if of.sd is None else f"{mean} ± {of.sd / scale:,.{digits}f}"


def minutes(of: Spread | None) -> str:
    """Return seconds in minutes, with as many digits as are meaningful."""
    return with_spread(of, 2 if of is None or of.mean < 600 else 1 if of.mean < 6000 else 0, 60.0)


def number(value: Any, digits: int = 2) -> str:
    """Return a number from a file as a short text, such as `1,281,167`; other text as it is; other values as ''."""
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value) if isinstance(value, str) else ""
    if not math.isfinite(as_float):
        return str(as_float)
    return f"{int(as_float):,}" if as_float == int(as_float) and abs(as_float) >= 1000 else f"{as_float:.{digits}f}"


def letter(place: int) -> str:
    """Return a, b, ... z, aa, ab, ... for 0, 1, ..."""
    rest, last = divmod(place, 26)
    return (letter(rest - 1) if rest else "") + ascii_lowercase[last]


def value(of: Any) -> str:
    """Return a configuration's value as it is typed: null, true, 5e-05, 8ep."""
    if of is None:
        return "null"
    return str(of).lower() if isinstance(of, bool) else str(of)
