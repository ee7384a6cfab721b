"""Figures as they are printed."""

from __future__ import annotations

import math
from typing import Any

from tools.records import Spread

NOTHING = ""


def with_spread(its: Spread | None, digits: int = 2, scale: float = 1.0) -> str:
    """A mean, and where there are several runs the standard deviation: `76.07 ± 0.13`."""
    if its is None:
        return NOTHING
    mean = f"{its.mean / scale:,.{digits}f}"
    return mean if its.sd is None else f"{mean} ± {its.sd / scale:,.{digits}f}"


def minutes(its: Spread | None) -> str:
    """Seconds in minutes, with as many digits as mean something."""
    if its is None:
        return NOTHING
    return with_spread(its, 2 if its.mean < 600 else 1 if its.mean < 6000 else 0, 60.0)


def number(value: Any, digits: int = 2) -> str:
    """A number of unknown kind as a short text: `76.07`, `1,281,167`, nothing for what is none."""
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value) if isinstance(value, str) else NOTHING
    if not math.isfinite(as_float):
        return str(as_float)
    return f"{int(as_float):,}" if as_float == int(as_float) and abs(as_float) >= 1000 else f"{as_float:.{digits}f}"


def letter(place: int) -> str:
    """a, b, ... z, aa, ab, ... for 0, 1, ..."""
    text = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def value(of: Any) -> str:
    """A configuration's value as it is typed: null, true, 5e-05, 8ep."""
    if of is None:
        return "null"
    return str(of).lower() if isinstance(of, bool) else str(of)
